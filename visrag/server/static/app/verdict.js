/** The verdict on a page. */
import { html, useEffect, usePage, useState } from "./library.js";
import { VERDICTS } from "./text.js";

function Verdict({ feedback }) {
  const { state, go } = usePage();
  const { reviewer: me, setReviewer } = feedback;
  const { open, page } = state;
  const mine = feedback.mine(open, page);
  const others = feedback.of(open, page).filter(({ reviewer }) => reviewer !== me);
  const [note, setNote] = useState("");
  useEffect(() => setNote(mine?.note ?? ""), [open, page, mine?.note]);
  const keep = () =>
    note.trim() !== (mine?.note ?? "") && feedback.judge(open, page, () => ({ note: note.trim() }));
  const button = (
    verdict,
    key,
  ) => html`<button type="button" class=${`verdict ${verdict}`} data-testid=${`verdict-${verdict}`}
    aria-pressed=${mine?.verdict === verdict ? "true" : "false"} onClick=${() => feedback.toggle(open, page, verdict)}>
    ${VERDICTS[verdict]} <kbd>${key}</kbd></button>`;
  return html`<section aria-labelledby="verdict"><h2 id="verdict">Verdict</h2>
    <p class="asked">${state.q}</p>
    <div class="row">${button("relevant", "y")}${button("not_relevant", "n")}</div>
    <label class="field">Note
      <textarea rows="2" data-testid="note" value=${note} onInput=${(event) => setNote(event.target.value)}
        onChange=${keep}></textarea></label>
    <div class="pair"><label class="field">Review
      <input data-testid="review" value=${state.review} placeholder="no name" maxlength="200"
        onChange=${(event) => go({ review: event.target.value.trim() }, { replace: true })} /></label>
    ${
      setReviewer &&
      html`<label class="field">Your name
      <input data-testid="reviewer" value=${me} placeholder="no name" maxlength="200"
        onChange=${(event) => setReviewer(event.target.value.trim())} /></label>`
    }
    </div>
    ${
      others.length > 0 &&
      html`<ul class="others" aria-label="Verdicts of others">${others.map(
        (each) => html`
      <li key=${each.reviewer}>
        <span class=${`badge ${each.verdict ?? "note"}`}>${VERDICTS[each.verdict] ?? "Note"}</span>
      ${" "}${each.reviewer}${each.note && `: ${each.note}`}</li>`,
      )}</ul>`
    }
  </section>`;
}

export { Verdict };

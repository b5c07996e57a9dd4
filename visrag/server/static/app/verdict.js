/** The verdict on a page. */
import { Line } from "./field.js";
import { html, usePage } from "./library.js";
import { Note } from "./note.js";
import { VERDICTS } from "./text.js";

function Verdict({ feedback }) {
  const { state, go } = usePage();
  const { reviewer: me, setReviewer } = feedback;
  const { open, page } = state;
  const mine = feedback.mine(open, page);
  const others = feedback.of(open, page).filter(({ reviewer }) => reviewer !== me);
  const place = JSON.stringify([state.review, state.q.trim(), me, open, page]);
  const button = (
    verdict,
    key,
  ) => html`<button type="button" class=${`verdict ${verdict}`} data-testid=${`verdict-${verdict}`}
    aria-pressed=${mine?.verdict === verdict ? "true" : "false"} onClick=${() => feedback.toggle(open, page, verdict)}>
    ${VERDICTS[verdict]} <kbd>${key}</kbd></button>`;
  return html`<section aria-labelledby="verdict"><h2 id="verdict">Verdict</h2>
    <p class="asked">${state.q}</p>
    <div class="row">${button("relevant", "y")}${button("not_relevant", "n")}</div>
    <${Note} place=${place} kept=${mine?.note ?? ""}
      judge=${(change) => feedback.judge(open, page, change)} />
    <div class="pair"><label class="field">Review
      <${Line} data-testid="review" value=${state.review} placeholder="no name" maxlength="200"
        onKeep=${(review) => go({ review }, { replace: true })} /></label>
    ${
      setReviewer &&
      html`<label class="field">Your name
      <${Line} data-testid="reviewer" value=${me} placeholder="no name" maxlength="200"
        onKeep=${setReviewer} /></label>`
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

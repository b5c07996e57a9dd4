/** The note on a page: kept when the field, the page or the tab is left. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "./library.js";

const LONGEST = 10_000; // characters that the server takes

const untouched = () => ({ draft: null, sent: null, seen: [], before: "" });

/**
 * `place`: whose note on what this is; when it changes the field stays, for somebody may be about to type in it. `kept`:
 * the note as far as it is known. `judge(change)`: as in feedback.js, for this place.
 */
function Note({ place, kept, judge }) {
  const [draft, setDraft] = useState(null); // null: nothing but what is kept
  const now = useRef(untouched());
  const latest = useRef(judge);
  const type = (event) => {
    const text = event.target.value;
    const note = now.current;
    if (note.draft === null) Object.assign(note, { sent: null, seen: [kept], before: "" });
    note.draft = text === kept && note.sent === null ? null : text;
    setDraft(note.draft);
  };
  const keep = async () => {
    const note = now.current;
    const { draft, sent } = note;
    if (draft === null || draft === sent) return;
    note.sent = draft;
    const done = await latest.current((mine) => ({ note: withUnseen(note, mine?.note ?? "", draft) }));
    if (!done) note.sent = null;
    else if (note.draft === draft) {
      note.draft = null;
      if (note === now.current) setDraft(null);
    }
  };
  useEffect(() => {
    addEventListener("pagehide", keep);
    return () => removeEventListener("pagehide", keep);
  }, []);
  useLayoutEffect(
    () => () => {
      keep();
      now.current = untouched();
      setDraft(null);
    },
    [place],
  );
  useLayoutEffect(() => {
    latest.current = judge; // after what was typed has been kept where it was typed
  });
  return html`<label class="field">Note
    <textarea rows="2" data-testid="note" maxlength=${LONGEST} value=${draft ?? kept} onInput=${type}
      onBlur=${keep}></textarea></label>`;
}

/** A note that was there already but came after the first letter was typed stays, before what is typed. */
function withUnseen(now, stored, draft) {
  if (!now.seen.includes(stored)) now.before = stored && `${stored}\n`;
  const note = (now.before + draft).trim();
  now.seen.push(note);
  return note;
}

export { Note };

/** The note on a page: kept when the field, the page or the tab is left. */
import { html, useEffect, useRef, useState } from "./library.js";

const LONGEST = 10_000; // characters that the server takes

/** `kept`: the note as far as it is known. `judge(change)`: as in feedback.js, for this page. */
function Note({ kept, judge }) {
  const [draft, setDraft] = useState(null); // null: nothing but what is kept
  const now = useRef({ draft: null, sent: null, seen: [], before: "" });
  now.current.judge = judge;
  const write = (draft) => {
    now.current.draft = draft;
    setDraft(draft);
  };
  const type = (event) => {
    const text = event.target.value;
    if (now.current.draft === null) Object.assign(now.current, { sent: null, seen: [kept], before: "" });
    write(text === kept && now.current.sent === null ? null : text);
  };
  const keep = async () => {
    const { draft, sent, judge } = now.current;
    if (draft === null || draft === sent) return;
    now.current.sent = draft;
    const done = await judge((mine) => ({ note: withUnseen(now.current, mine?.note ?? "", draft) }));
    if (!done) now.current.sent = null;
    else if (now.current.draft === draft) write(null);
  };
  useEffect(() => {
    addEventListener("pagehide", keep);
    return () => {
      removeEventListener("pagehide", keep);
      keep();
    };
  }, []);
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

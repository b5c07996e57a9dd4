/** A line of text that counts once it is left. */
import { html, useEffect, useState } from "./library.js";

/** `value`: as it is kept; what is being typed stays whatever else is drawn anew. `onKeep(text)`: trimmed. */
function Line({ value, onKeep, ...rest }) {
  const [draft, setDraft] = useState(value);
  useEffect(() => setDraft(value), [value]);
  const keep = () => {
    setDraft(draft.trim());
    onKeep(draft.trim());
  };
  return html`<input ...${rest} value=${draft} onInput=${(event) => setDraft(event.target.value)} onChange=${keep} />`;
}

export { Line };

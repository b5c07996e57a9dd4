/** Texts with marks, numbers and names as they are shown. */
import { html } from "./library.js";

/** A text with the spans [start, end) marked. The server counts in code points, JavaScript in UTF-16. */
function Marked({ text, spans }) {
  const characters = Array.from(text);
  const parts = [];
  let done = 0;
  for (const [start, end] of spans) {
    if (start < done) continue;
    parts.push(characters.slice(done, start).join(""), html`<mark>${characters.slice(start, end).join("")}</mark>`);
    done = end;
  }
  return html`${parts}${characters.slice(done).join("")}`;
}

/** A score with three decimals and a real minus sign. */
const score = (value) => value.toFixed(3).replace("-", "−");

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

const VERDICTS = { relevant: "Relevant", not_relevant: "Not relevant" };

export { Marked, VERDICTS, plural, score };

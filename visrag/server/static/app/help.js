/** The list of keys. */
import { Dialog } from "./dialog.js";
import { keysAreOn, turnKeys } from "./keys.js";
import { html, useState } from "./library.js";

const KEYS = [
  ["/", "to the search box"],
  ["j  k", "next, previous hit"],
  ["y  n", "relevant, not relevant; again: withdraw"],
  ["←  →  or  [  ]", "page before, page after"],
  ["+  −  0", "zoom in, out, whole page"],
  ["h", "heat on and off"],
  ["b", "boxes on and off"],
  ["Esc", "back to the results; out of a field"],
  ["?", "this list"],
];

function Help({ onClose }) {
  const [on, setOn] = useState(keysAreOn());
  const turn = (event) => {
    turnKeys(event.target.checked);
    setOn(event.target.checked);
  };
  return html`<${Dialog} title="Keys" onClose=${onClose} data-testid="help">
    <table class="keys"><tbody>
      ${KEYS.map(
        ([keys, what]) => html`<tr key=${keys}><th scope="row">
        ${keys.split("  ").map((key) => (key === "or" ? " or " : html`<kbd>${key}</kbd> `))}</th><td>${what}</td></tr>`,
      )}
    </tbody></table>
    <p class="quiet">Ctrl and the wheel zoom; drag to move the page. Files dropped anywhere are uploaded.</p>
    <label class="check"><input type="checkbox" checked=${on} onChange=${turn} /> Single keys are active</label>
  <//>`;
}

export { Help };

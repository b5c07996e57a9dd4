/** A modal dialog: the browser holds the focus in it and gives it back. */
import { html, useEffect, useId, useRef } from "./library.js";

/** `onClose` absent: it cannot be dismissed. */
function Dialog({ title, onClose, children, ...rest }) {
  const dialog = useRef(null);
  const heading = useId();
  useEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => shown.close();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    onClose?.();
  };
  const press = (event) => event.target === dialog.current && onClose?.();
  return html`<dialog ref=${dialog} aria-labelledby=${heading} onCancel=${cancel} onMouseDown=${press} ...${rest}>
    <div class="dialog">
      <div class="dialog-head"><h2 id=${heading}>${title}</h2>
        ${onClose && html`<button type="button" class="plain" aria-label="Close" onClick=${onClose}>×</button>`}</div>
      ${children}
    </div>
  </dialog>`;
}

/** Asks before something that cannot be taken back. */
function Confirm({ title, text, action, onConfirm, onClose }) {
  const confirm = () => {
    onClose();
    onConfirm();
  };
  return html`<${Dialog} title=${title} onClose=${onClose} data-testid="confirm">
    <p>${text}</p>
    <div class="row end"><button type="button" autofocus onClick=${onClose}>Cancel</button>
      <button type="button" class="danger" onClick=${confirm}>${action}</button></div>
  <//>`;
}

export { Confirm, Dialog };

/** Asks for a key when the server wants one. */
import { api } from "./api.js";
import { Dialog } from "./dialog.js";
import { html, useState } from "./library.js";

function SignIn({ onEnter }) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const send = (event) => {
    event.preventDefault();
    setBusy(true);
    const key = new FormData(event.target).get("key").trim();
    api.signIn(key).then(onEnter, (problem) => {
      setError(problem.message);
      setBusy(false);
    });
  };
  return html`<${Dialog} title="Sign in" data-testid="sign-in">
    <form onSubmit=${send}>
      <p>This server wants a key. <code>visrag keys create</code> makes one.</p>
      <label class="field">Key
        <input name="key" type="password" autocomplete="current-password" required autofocus
          aria-describedby=${error ? "key-error" : undefined} aria-invalid=${error ? "true" : undefined} /></label>
      ${error && html`<p class="error" id="key-error" role="alert">${error}</p>`}
      <div class="row end"><button type="submit" class="primary" disabled=${busy}>Sign in</button></div>
    </form>
  <//>`;
}

export { SignIn };

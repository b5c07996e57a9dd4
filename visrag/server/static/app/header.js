/** The head of the page: views, collection, help; and the line in which it says what happened. */
import { html, useEffect, usePage } from "./library.js";

/** A link inside the page: a plain click changes the state, any other opens it as the browser does. */
function Go({ to, children, ...rest }) {
  const { go, href } = usePage();
  const click = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button) return;
    event.preventDefault();
    go(to);
  };
  return html`<a href=${href(to)} onClick=${click} ...${rest}>${children}</a>`;
}

function Header({ onLeave, onHelp }) {
  const { session, collection, state, go } = usePage();
  const inView = (view) => state.view === view || (view === "search" && state.view === "page");
  const link = (view, text) =>
    html`<${Go} to=${{ view }} aria-current=${inView(view) ? "page" : undefined}>${text}<//>`;
  const choose = (event) =>
    go({
      collection: event.target.value,
      view: state.view === "page" ? "search" : state.view,
      document: [],
      tag: [],
      open: "",
      hit: 0,
    });
  return html`<header class="top">
    <span class="brand">visrag</span>
    <nav aria-label="Views">
      ${link("search", "Search")}${link("documents", "Documents")}${link("verdicts", "Verdicts")}
    </nav>
    <div class="top-end">
      ${
        session.collections.length > 1
          ? html`<label class="inline">Collection
        <select value=${collection.name} onChange=${choose}>
          ${session.collections.map(({ name }) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>`
          : html`<span class="quiet wide">${collection.name}</span>`
      }
      <button type="button" class="plain" onClick=${onHelp}>Help</button>
      ${
        session.access === "keys" &&
        html`<span class="quiet wide">${session.name} · ${session.role}</span>
        <button type="button" class="plain" onClick=${onLeave}>Sign out</button>`
      }
    </div>
  </header>`;
}

const SHOWN = 8000; // ms

function Notice({ notice, onClose }) {
  useEffect(() => {
    if (!notice || notice.bad) return undefined;
    const timer = setTimeout(onClose, SHOWN);
    return () => clearTimeout(timer);
  }, [notice]);
  return html`<div class="notices" role="status" data-testid="notice">
    ${
      notice &&
      html`<div class=${`notice ${notice.bad ? "bad" : ""}`}><span>${notice.text}</span>
        <button type="button" class="plain" aria-label="Close the message" onClick=${onClose}>×</button></div>`
    }
  </div>`;
}

export { Go, Header, Notice };

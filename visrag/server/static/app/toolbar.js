/** The line over the page: where one is, and where one can go. */
import { urls } from "./api.js";
import { html, usePage } from "./library.js";

/** `drawn`: of what the picture to download shows the heat, as in urls.highlighted. */
function Toolbar({ search, info, actions, percent, drawn }) {
  const { state, collection } = usePage();
  const { hits, more } = search;
  const q = state.q.trim();
  const png = q && urls.highlighted(collection.name, state.open, state.page, q, drawn);
  const button = (label, text, act, disabled = false, rest = {}) => html`<button type="button" aria-label=${label}
    title=${label} onClick=${act} disabled=${disabled} ...${rest}>${text}</button>`;
  return html`<div class="toolbar" role="group" aria-label="This page">
    <button type="button" onClick=${actions.back} data-testid="back">← Results</button>
    ${
      hits.length > 0 &&
      html`<div class="row joined">
      ${button("Previous hit (k)", "‹", actions.previous, actions.from <= 0)}
      <span class="number" data-testid="hit-position">
        hit ${actions.from >= 0 ? actions.from + 1 : "–"} of ${hits.length}${more && "+"}</span>
      ${button("Next hit (j)", "›", actions.next, actions.from + 1 >= hits.length && !more)}</div>`
    }
    <h1 title=${state.open}>${state.open}</h1>
    <div class="row joined">
      ${button("Page before (←)", "‹", actions.before, state.page <= 1)}
      <span class="number" data-testid="page-position">page ${state.page} of ${info?.pages ?? "…"}</span>
      ${button("Page after (→)", "›", actions.after, !info || state.page >= info.pages)}</div>
    <div class="row joined">
      ${button("Zoom out (−)", "−", () => actions.zoom(-1))}
      <output class="number zoom" data-testid="zoom" aria-label="Zoom">${percent ? `${percent} %` : ""}</output>
      ${button("Zoom in (+)", "+", () => actions.zoom(1))}
      ${button("Whole page (0)", "Fit", actions.fit, false, { "aria-pressed": String(state.zoom === 0) })}</div>
    <div class="row">
      <a class="button" href=${urls.original(collection.name, state.open, state.page)} target="_blank" rel="noopener"
        data-testid="open-original">Open the ${state.open.toLowerCase().endsWith(".pdf") ? "PDF" : "file"}</a>
      ${
        png &&
        html`<a class="button" href=${png} download=${`${state.open}-page-${state.page}.png`}
        data-testid="download-png">Highlighted PNG</a>`
      }</div>
  </div>`;
}

export { Toolbar };

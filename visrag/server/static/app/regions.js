/** Regions outlined over a page that its frame holds exactly. */
import { html } from "./library.js";

const percent = (share) => `${(share * 100).toFixed(4)}%`;

/** The place of a box (fractions) in its frame. */
const placed = ([x0, y0, x1, y1]) => ({
  left: percent(x0),
  top: percent(y0),
  width: percent(x1 - x0),
  height: percent(y1 - y0),
});

/** For the eye only: wherever it is used, the regions stand beside it as text. */
function Regions({ regions }) {
  return html`<span class="regions" aria-hidden="true">
    ${regions.map((region, index) => html`<span key=${index} class="region" style=${placed(region.box)}></span>`)}
  </span>`;
}

export { Regions, placed };

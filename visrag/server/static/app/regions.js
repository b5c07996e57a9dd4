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

const NUMBER = 21; // CSS pixels: the side of a region's number, and a little room

/** How far to the left the number of each region goes, in CSS pixels, so that it covers no number before it. */
function movedAside(regions, layout) {
  const taken = [];
  return regions.map(({ box }) => {
    const [left, top] = [box[0] * layout.width, box[1] * layout.height];
    const place = { left, top };
    const covers = (other) => Math.abs(other.left - place.left) < NUMBER && Math.abs(other.top - top) < NUMBER;
    for (let other = taken.find(covers); other; other = taken.find(covers)) place.left = other.left - NUMBER;
    taken.push(place);
    return left - place.left;
  });
}

/** For the eye only: wherever it is used, the regions stand beside it as text. */
function Regions({ regions }) {
  return html`<span class="regions" aria-hidden="true">
    ${regions.map((region, index) => html`<span key=${index} class="region" style=${placed(region.box)}></span>`)}
  </span>`;
}

export { Regions, movedAside, placed };

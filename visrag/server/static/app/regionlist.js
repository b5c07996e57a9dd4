/** The regions of a page as a list, which is also what the heat is in words; and the page's text. */
import { html } from "./library.js";
import { score } from "./text.js";

function RegionList({ regions, heat, crop, onSpot }) {
  if (!heat) return null;
  return html`<section aria-labelledby="regions-title"><h2 id="regions-title">Regions</h2>
    <div id="regions">${
      regions.length === 0
        ? html`<p class="quiet">Nothing stands out on this page.</p>`
        : html`<ol class="region-list">${regions.map(
            (region, index) => html`
        <li key=${index} onMouseEnter=${() => onSpot(region.box)} onMouseLeave=${() => onSpot(null)}>
          <p>${region.text || html`<span class="quiet">a part of the picture without text</span>`}</p>
          <p class="quiet"><span class="number">${score(region.score)}</span> · <a href=${crop(region)} target="_blank"
            rel="noopener" onFocus=${() => onSpot(region.box)} onBlur=${() => onSpot(null)}
            aria-label=${`Crop of region ${index + 1}`}>Crop</a></p>
        </li>`,
          )}</ol>`
    }</div>
  </section>`;
}

const SOURCES = { text_layer: "from the file", ocr: "read by OCR", both: "from the file and by OCR" };

function Text({ info }) {
  if (!info) return null;
  return html`<details class="page-text"><summary>Text of the page</summary>
    ${SOURCES[info.text_source] && html`<p class="quiet">Text ${SOURCES[info.text_source]}.</p>`}
    <p class="plain-text" tabindex="0" dir="auto">${info.text || "There is no text on this page."}</p></details>`;
}

export { RegionList, Text };

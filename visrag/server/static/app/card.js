/** A hit among the results. */
import { looking } from "./address.js";
import { urls } from "./api.js";
import { Go } from "./header.js";
import { html, usePage, useState } from "./library.js";
import { Regions } from "./regions.js";
import { Shares } from "./shares.js";
import { Marked, VERDICTS, score } from "./text.js";

const THUMBNAIL = 400; // pixels, the longer side

function Card({ hit, best, verdicts }) {
  const { collection } = usePage();
  const [loaded, setLoaded] = useState(false);
  const to = looking(hit.document, hit.page, hit.rank);
  return html`<article class="card" data-testid="hit" data-rank=${hit.rank} aria-labelledby=${`hit-${hit.rank}`}>
    <${Go} class="thumbnail" to=${to} tabindex="-1" aria-hidden="true">
      <img src=${urls.image(collection.name, hit.document, hit.page, THUMBNAIL)} alt="" loading="lazy"
        onLoad=${() => setLoaded(true)} />
      ${loaded && html`<${Regions} regions=${hit.regions} />`}
    <//>
    <div class="card-body">
      <h2 id=${`hit-${hit.rank}`}>
        <${Go} to=${to} data-testid="hit-link">
          <span class="rank">${hit.rank}</span> ${hit.document}, page ${hit.page}<//></h2>
      ${
        verdicts.length > 0 &&
        html`<ul class="verdicts" aria-label="Verdicts">
        ${verdicts.map(
          (each) => html`<li class=${`badge ${each.verdict ?? "note"}`} title=${each.note}>
          ${VERDICTS[each.verdict] ?? "Note"}<span class="quiet"> ${each.reviewer}</span></li>`,
        )}</ul>`
      }
      <p class="snippet" dir="auto"><${Marked} text=${hit.snippet} spans=${hit.marks} /></p>
      <div class="score"><span class="number" title="score">${score(hit.score)}</span>
        <${Shares} shares=${hit.shares} score=${hit.score} best=${best} /></div>
    </div>
  </article>`;
}

export { Card };

/** A document in the list. */
import { looking } from "./address.js";
import { api, urls } from "./api.js";
import { Confirm } from "./dialog.js";
import { Go } from "./header.js";
import { html, usePage, useState } from "./library.js";
import { plural } from "./text.js";

const STATES = {
  queued: "queued",
  working: "being read",
  indexed: "ready",
  partial: "ready in part",
  failed: "failed",
};

function Row({ document, onRetry, onRemove }) {
  const { collection } = usePage();
  const [asking, setAsking] = useState(false);
  const { document: name, state, pages, indexed, failed, tags } = document;
  const onItsWay = state === "queued" || state === "working";
  const readable = indexed > 0 && !onItsWay;
  return html`<li class="document" data-testid="document" data-state=${state} data-name=${name}>
    <div class="document-head">
      <h2>${readable ? html`<${Go} to=${{ ...looking(name, 1), q: "" }}>${name}<//>` : name}</h2>
      <span class=${`badge ${state}`}>${STATES[state]}</span>
      ${Object.entries(tags).map(([key, value]) => html`<span key=${key} class="tag">${key}=${value}</span>`)}
    </div>
    <div class="document-line">
      ${
        onItsWay &&
        pages > 0 &&
        html`<progress value=${indexed + failed} max=${pages}
        aria-label=${`Pages read of ${name}`}></progress>`
      }
      <span class="number">${counted(document, onItsWay)}</span>
      <span class="actions">
        ${
          readable &&
          html`<a href=${urls.original(collection.name, name)} target="_blank" rel="noopener"
          aria-label=${`Open the file ${name}`}>File</a>`
        }
        ${
          collection.ingest &&
          failed + document.failures.length > 0 &&
          !onItsWay &&
          html`<button type="button"
          aria-label=${`Retry ${name}`} onClick=${() => onRetry(document)}>Retry</button>`
        }
        ${
          collection.ingest &&
          html`<button type="button" aria-label=${`Delete ${name}`}
          onClick=${() => setAsking(true)}>Delete</button>`
        }
      </span>
    </div>
    ${document.failures.length > 0 && html`<${Failures} document=${document} />`}
    ${
      asking &&
      html`<${Confirm} title="Delete this document?" action="Delete" onClose=${() => setAsking(false)}
      onConfirm=${() => onRemove(document)}
      text=${`${leaving(name, pages)} the index. Verdicts on its pages stay.`} />`
    }
  </li>`;
}

const leaving = (name, pages) => (pages ? `${name} and its ${plural(pages, "page")} leave` : `${name} leaves`);

function counted({ pages, indexed, failed }, onItsWay) {
  if (onItsWay) return pages ? `${indexed + failed} of ${plural(pages, "page")}` : "not opened yet";
  if (!pages) return "no pages";
  return failed ? `${indexed} of ${plural(pages, "page")}, ${failed} failed` : plural(pages, "page");
}

/** The first failures come with the list, the others when they are asked for. */
function Failures({ document }) {
  const { collection, fail } = usePage();
  const [all, setAll] = useState(null);
  const shown = all ?? document.failures;
  const more = all === null && document.failed > shown.length;
  const ask = () => api.document(collection.name, document.document).then((found) => setAll(found.failures), fail);
  return html`<ul class="failures" aria-label=${`Failures of ${document.document}`}>
    ${shown.map(
      (failure, index) => html`<li key=${index}>
      <strong>${failure.page === null ? "The file" : `Page ${failure.page}`}</strong> ${failure.message}
      <span class="quiet"> (${failure.reason})</span></li>`,
    )}
    ${more && html`<li><button type="button" class="plain" onClick=${ask}>All failures</button></li>`}
  </ul>`;
}

export { Row };

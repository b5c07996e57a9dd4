/** The documents of the collection: what is being read, what failed, and new ones. */
import { api } from "./api.js";
import { Row } from "./documentrow.js";
import { html, useEffect, usePage, useState } from "./library.js";
import { useDocuments } from "./listing.js";
import { plural } from "./text.js";

const STATES = [
  ["", "all"],
  ["queued", "queued"],
  ["working", "being read"],
  ["indexed", "ready"],
  ["partial", "ready in part"],
  ["failed", "failed"],
];

function DocumentsView({ uploads }) {
  const page = usePage();
  const { state, go, collection, fail, notify } = page;
  const { documents, total, error, loading, more, put, gone } = useDocuments(page);
  const retry = ({ document }) =>
    api.retry(collection.name, document).then((queued) => {
      put(queued);
      notify(`${document} is read once more.`);
    }, fail);
  const remove = ({ id, document }) =>
    api.remove(collection.name, document).then(() => {
      gone(id);
      notify(`${document} is deleted.`);
    }, fail);
  return html`<main id="content" class="list-view" tabindex="-1">
    <div class="list-head"><h1>Documents</h1>
      <label class="inline">State <select data-testid="state-filter" value=${state.state}
        onChange=${(event) => go({ state: event.target.value })}>
        ${STATES.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select></label>
    </div>
    ${collection.ingest && html`<${Upload} uploads=${uploads} />`}
    ${uploads.list.length > 0 && html`<${Uploads} uploads=${uploads} />`}
    ${error && html`<p class="error" role="alert">${error.message}</p>`}
    <p role="status" data-testid="documents-summary">
      ${loading && !documents.length ? "Loading…" : plural(total, "document")}</p>
    <ul class="documents" aria-label="Documents">
      ${documents.map((each) => html`<${Row} key=${each.id} document=${each} onRetry=${retry} onRemove=${remove} />`)}
    </ul>
    ${
      documents.length < total &&
      html`<button type="button" class="more" disabled=${loading}
      onClick=${more}>More documents</button>`
    }
  </main>`;
}

/** "year=2024, kind=report" → {year: "2024", kind: "report"}; null where a part has no "=". */
function tagsOf(text) {
  const parts = text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
  if (parts.some((part) => part.indexOf("=") < 1)) return null;
  return Object.fromEntries(
    parts.map((part) => [part.slice(0, part.indexOf("=")).trim(), part.slice(part.indexOf("=") + 1).trim()]),
  );
}

function Upload({ uploads }) {
  const [text, setText] = useState("");
  const tags = tagsOf(text);
  useEffect(() => {
    if (tags) uploads.setTags(tags);
  }, [text]);
  useEffect(() => () => uploads.setTags({}), []);
  const choose = (event) => {
    uploads.add(event.target.files);
    event.target.value = "";
  };
  return html`<section class="upload" aria-labelledby="upload"><h2 id="upload" class="unseen">Add documents</h2>
    <div class="row">
      <label class="button primary file">Add files
        <input type="file" multiple data-testid="upload" onChange=${choose} /></label>
      <label class="inline">Tags for them
        <input value=${text} placeholder="year=2024, kind=report" data-testid="upload-tags"
          onInput=${(event) => setText(event.target.value)}
          aria-invalid=${tags ? undefined : "true"} aria-describedby=${tags ? undefined : "tags-error"} /></label>
      <span class="quiet wide">
        PDF, PNG, JPEG, TIFF, WebP, text, Markdown, HTML. Files can be dropped anywhere on the page.
      </span></div>
    ${!tags && html`<p class="error" id="tags-error">Write tags as key=value, with commas between them.</p>`}
  </section>`;
}

/** Files on their way, those for other collections too. */
function Uploads({ uploads }) {
  const { collection } = usePage();
  return html`<ul class="uploads" aria-label="Uploads">${uploads.list.map(
    (each) => html`
    <li key=${each.serial} data-testid="upload-row"><span class="name">${each.file.name}${
      each.collection !== collection.name && html` <span class="quiet">for ${each.collection}</span>`
    }</span>
      ${
        each.state === "refused"
          ? html`<span class="error" role="alert">${each.message}</span>
        <button type="button" onClick=${() => uploads.dismiss(each.serial)}>Dismiss</button>`
          : html`<progress value=${each.share} max="1" aria-label=${`Sent of ${each.file.name}`}></progress>
        <span class="number">${each.state === "waiting" ? "waits" : `${Math.floor(each.share * 100)} %`}</span>
        <button type="button" aria-label=${`Stop ${each.file.name}`}
          onClick=${() => uploads.stop(each.serial)}>Stop</button>`
      }
    </li>`,
  )}</ul>`;
}

export { DocumentsView };

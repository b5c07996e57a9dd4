/** Which documents are searched, and how hits are ranked. */
import { api } from "./api.js";
import { Line } from "./field.js";
import { html, useLoaded, usePage, useState } from "./library.js";

const LISTED = 1000; // documents offered while one types; any other name can be typed in full

const RANKS = [
  ["fusion", "Fusion of all"],
  ["maxsim", "MaxSim, plain"],
  ["fulltext", "Full text"],
];

/** A tag has one value: another one takes its place. */
const withTag = (tags, tag) => [...tags.filter((each) => each.split("=", 1)[0] !== tag.split("=", 1)[0]), tag];

/** `draft`: a ref to what stands in the search box, which a filter asks for too. */
function Filters({ draft }) {
  const { collection, state, go } = usePage();
  const { value } = useLoaded(collection.name, (signal) =>
    api.documents(collection.name, { limit: LISTED, offset: 0 }, signal),
  );
  const documents = value?.documents ?? [];
  const tags = [
    ...new Set(documents.flatMap((each) => Object.entries(each.tags).map(([key, text]) => `${key}=${text}`))),
  ].sort();
  const free = tags.filter((tag) => !state.tag.includes(tag));
  const change = (change) => go({ ...change, q: draft.current.trim(), count: 10, hit: 0 });
  const without = (name, value) => change({ [name]: state[name].filter((each) => each !== value) });
  return html`<div class="filters" role="group" aria-label="Filters">
    <${DocumentFilter} documents=${documents} onChoose=${(name) => change({ document: [...state.document, name] })} />
    ${
      tags.length > 0 &&
      html`<label class="inline">Tag
      <select data-testid="tag-filter" value="" disabled=${!free.length}
        onChange=${(event) => change({ tag: withTag(state.tag, event.target.value) })}>
        <option value="">any</option>
        ${free.map((tag) => html`<option key=${tag} value=${tag}>${tag}</option>`)}</select></label>`
    }
    <label class="inline">Ranking
      <select data-testid="rank" value=${state.rank} onChange=${(event) => change({ rank: event.target.value })}>
        ${RANKS.map(([rank, text]) => html`<option key=${rank} value=${rank}>${text}</option>`)}</select></label>
    <label class="inline">Review
      <${Line} class="short" data-testid="review" value=${state.review} placeholder="no name" maxlength="200"
        onKeep=${(review) => go({ review })} /></label>
    ${
      (state.document.length > 0 || state.tag.length > 0) &&
      html`<ul class="chosen" aria-label="Filters in use">
      ${["document", "tag"].flatMap((name) =>
        state[name].map(
          (value) => html`<li key=${name + value}>
        <button type="button" class="chip" onClick=${() => without(name, value)}
          aria-label=${`Remove the filter ${value}`}>${value} <span aria-hidden="true">×</span></button></li>`,
        ),
      )}</ul>`
    }
  </div>`;
}

/** A name is taken when it is one that was offered, or on Enter. */
function DocumentFilter({ documents, onChoose }) {
  const { state } = usePage();
  const [draft, setDraft] = useState("");
  const known = (name) => documents.some((each) => each.document === name);
  const choose = (name) => {
    setDraft("");
    if (name && !state.document.includes(name)) onChoose(name);
  };
  const type = (event) => {
    const text = event.target.value;
    const picked = event.inputType === undefined || event.inputType === "insertReplacementText";
    if (picked && known(text)) choose(text);
    else setDraft(text);
  };
  const press = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const typed = draft.trim();
    const like = documents.find((each) => each.document.toLowerCase().includes(typed.toLowerCase()));
    choose(known(typed) || !like ? typed : typed && like.document);
  };
  return html`<label class="inline">Document
    <input list="documents" data-testid="document-filter" value=${draft} placeholder="any" autocomplete="off"
      onInput=${type} onKeyDown=${press} onChange=${() => known(draft.trim()) && choose(draft.trim())} />
    <datalist id="documents">
      ${documents.map(({ id, document }) => html`<option key=${id} value=${document}></option>`)}</datalist></label>`;
}

export { Filters };

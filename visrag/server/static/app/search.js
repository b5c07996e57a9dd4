/** The question and its hits. */
import { api, save } from "./api.js";
import { Card } from "./card.js";
import { Filters } from "./filters.js";
import { useKeys } from "./keys.js";
import { html, useEffect, usePage, useRef, useState } from "./library.js";
import { plural } from "./text.js";

const PAUSE = 250; // ms after the last key
const SHORTEST = 3; // characters that are worth an answer while typing
const PAGE = 10; // hits

function SearchView({ search, feedback }) {
  const { state, go } = usePage();
  const list = useRef(null);
  const draft = useRef(state.q);
  useBackToHit(list, search);
  const focused = () => document.activeElement?.closest("[data-testid=hit]");
  const step = (by) => {
    const cards = [...(list.current?.querySelectorAll("[data-testid=hit]") ?? [])];
    const next = cards[Math.min(Math.max(cards.indexOf(focused()) + by, 0), cards.length - 1)];
    next?.querySelector("[data-testid=hit-link]").focus();
    next?.scrollIntoView({ block: "nearest" });
  };
  const judge = (verdict) => {
    const hit = search.hits[Number(focused()?.dataset.rank) - 1];
    if (hit) feedback.toggle(hit.document, hit.page, verdict);
  };
  useKeys({ j: () => step(1), k: () => step(-1), y: () => judge("relevant"), n: () => judge("not_relevant") });
  const { hits, loading, error, more } = search;
  return html`<main id="content" class="search" tabindex="-1">
    <h1 class="unseen">Search</h1>
    <${Question} quick=${search.quick} latest=${draft} />
    <${Filters} draft=${draft} />
    <${Summary} search=${search} />
    ${error && html`<p class="error" role="alert">${error.message}</p>`}
    <ol class="hits" ref=${list} aria-busy=${loading ? "true" : "false"} aria-label="Hits">
      ${hits.map(
        (hit) => html`<li key=${`${hit.document} ${hit.page}`}>
        <${Card} hit=${hit} best=${hits[0].score} verdicts=${feedback.of(hit.document, hit.page)} /></li>`,
      )}
    </ol>
    ${
      more &&
      html`<button type="button" class="more" disabled=${loading}
      onClick=${() => go({ count: hits.length + PAGE }, { replace: true })}>More hits</button>`
    }
  </main>`;
}

/** Coming back from a page: its card has the focus again. */
function useBackToHit(list, search) {
  const { state } = usePage();
  const done = useRef(false);
  useEffect(() => {
    if (done.current || !search.hits.length) return;
    done.current = true;
    const card = list.current.querySelector(`[data-rank="${state.hit}"]`);
    card?.querySelector("[data-testid=hit-link]").focus({ preventScroll: true });
    card?.scrollIntoView({ block: "center" });
  }, [search.hits]);
}

/** The search box. Quick indexes answer while one types. */
function Question({ quick, latest }) {
  const { state, go, session, collection } = usePage();
  const [draft, setDraft] = useState(state.q);
  latest.current = draft;
  const timer = useRef(0);
  useEffect(() => {
    setDraft((before) => (before.trim() === state.q ? before : state.q));
  }, [state.q]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const ask = (text, options) => {
    clearTimeout(timer.current);
    go({ q: text.trim(), count: PAGE, hit: 0, view: "search" }, options);
  };
  const type = (event) => {
    const text = event.target.value;
    setDraft(text);
    clearTimeout(timer.current);
    const worth = text.trim().length >= SHORTEST || !text.trim();
    if (quick && worth) timer.current = setTimeout(ask, PAUSE, text, { replace: true });
  };
  const submit = (event) => {
    event.preventDefault();
    ask(draft);
  };
  return html`<form role="search" class="question" onSubmit=${submit}>
    <label class="unseen" for="question">Question</label>
    <input id="question" type="search" data-testid="search-box" value=${draft} onInput=${type} autocomplete="off"
      maxlength=${session.limits.question} placeholder=${`Ask ${plural(collection.pages, "page")}`} />
    <button type="submit" class="primary">Search</button>
  </form>`;
}

function Summary({ search }) {
  const { state, collection } = usePage();
  const { hits, loading, error, took } = search;
  const asked = Boolean(state.q.trim());
  let text = "";
  if (!asked) text = `${plural(collection.documents, "document")}, ${plural(collection.pages, "page")}.`;
  else if (loading && !hits.length) text = "Searching…";
  else if (!hits.length && !error) text = "No page answers to this. Try other words, or fewer filters.";
  else if (hits.length) text = plural(hits.length, "hit") + (search.more ? " shown" : "");
  return html`<div class="summary">
    <p role="status" data-testid="summary">${text}
      ${hits.length > 0 && took !== null && html`<span class="quiet"> in ${Math.round(took)} ms</span>`}</p>
    ${hits.length > 0 && html`<${Export} pages=${hits} question=${state.q.trim()} />`}
  </div>`;
}

/** Downloads a PDF of pages with the evidence as highlight annotations. */
function Export({ pages, question, label = "PDF of these pages" }) {
  const { collection, fail } = usePage();
  const [busy, setBusy] = useState(false);
  const send = () => {
    setBusy(true);
    const wanted = pages.map(({ document, page }) => ({ document, page }));
    api
      .exportPages(collection.name, question, wanted)
      .then((blob) => save(blob, "visrag-pages.pdf"), fail)
      .finally(() => setBusy(false));
  };
  return html`<button type="button" data-testid="export-pdf" disabled=${busy} onClick=${send}>
    ${busy ? "Making the PDF…" : label}</button>`;
}

export { Export, SearchView };

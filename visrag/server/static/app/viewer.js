/** The reviewer's view: a page, where it answers, and the verdict on it. */
import { Account } from "./account.js";
import { looking } from "./address.js";
import { api, urls } from "./api.js";
import { chosenOf, heatOf, mapOf, placeAt } from "./heat.js";
import { useKeys } from "./keys.js";
import { html, useEffect, useLoaded, useMemo, usePage, useRef, useState } from "./library.js";
import { stepped } from "./moving.js";
import { RegionList, Text } from "./regionlist.js";
import { Stage } from "./stage.js";
import { score } from "./text.js";
import { Toolbar } from "./toolbar.js";
import { Verdict } from "./verdict.js";
import { Where } from "./where.js";

const KEPT = 40; // answers on pages kept, for going to and fro

/** Loads once and remembers, by key. */
const kept = new Map();
function remembered(key, load) {
  if (kept.has(key)) return kept.get(key);
  const promise = load();
  kept.set(key, promise);
  promise.catch(() => kept.delete(key));
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return promise;
}

/** All that the server knows of a page and of the question on it; each null until it is there. */
function usePageAnswers({ collection, state, session, changes }, hits) {
  const { open, page, rank, document, tag } = state;
  const q = state.q.trim();
  const place = JSON.stringify([session.since, changes, collection.name, open, page]);
  const info = useLoaded(place, () => remembered(place, () => api.page(collection.name, open, page)));
  const heatKey = q ? JSON.stringify([place, q]) : null;
  const heat = useLoaded(heatKey, () => remembered(heatKey, () => api.heatmap(collection.name, open, page, q)));
  const hit = hits.find((each) => each.document === open && each.page === page) ?? null;
  const accountKey = q ? JSON.stringify([place, q, rank, document, tag]) : null;
  const account = useLoaded(hit ? null : accountKey, () =>
    remembered(accountKey, () => api.account(collection.name, open, page, { q, rank, document, tag })),
  );
  const error = info.error ?? heat.error ?? account.error;
  return { info: info.value ?? null, heat: heat.value ?? null, account: hit ?? account.value ?? null, hit, error };
}

function Viewer({ search, feedback }) {
  const page = usePage();
  const { state, go, collection } = page;
  const { info, heat, account, error } = usePageAnswers(page, search.hits);
  const [pointer, setPointer] = useState(null);
  const [spot, setSpot] = useState(null);
  const [percent, setPercent] = useState(null);
  const chosen = chosenOf(heat, state);
  const map = useMemo(
    () => (heat?.leg ? mapOf(heat, chosen.word, chosen.token) : null),
    [heat, chosen.word, chosen.token],
  );
  useEffect(() => setSpot(null), [state.open, state.page]);
  useAhead(page, search.hits);

  const actions = actionsOf(page, feedback, info, useHits(page, search));
  useKeys(actions.keys);
  const regions = heat?.regions ?? [];
  const picture = (side) => urls.image(collection.name, state.open, state.page, side);
  const crop = (region) => urls.crop(collection.name, state.open, state.page, region.box);
  const overlay =
    map && state.heat
      ? {
          heat,
          map,
          threshold: state.threshold / 100,
          opacity: state.opacity / 100,
          describedBy: "regions",
          label: `Heat of ${nameOf(heat, chosen)}`,
        }
      : null;
  const boxes = state.boxes ? regions : [];
  const label = `page ${state.page} of ${state.open}`;
  const shown = { name: label, label, info, picture };
  const look = {
    zoom: state.zoom,
    at: state.at,
    onZoom: (zoom) => go({ zoom }, { replace: true }),
    onAt: (at) => go({ at }, { replace: true }),
    onLayout: ({ zoom }) => setPercent(Math.round(zoom * 100)),
  };
  return html`<main id="content" class="viewer" tabindex="-1">
    <${Toolbar} search=${search} info=${info} actions=${actions} percent=${percent} drawn=${drawnOf(heat, chosen)} />
    ${error && html`<p class="error" role="alert">${error.message}</p>`}
    <div class="viewer-parts">
      <div class="viewer-page">
        <${Stage} onPoint=${setPointer} look=${look} marks=${{ regions: boxes, onRegion: crop, spot, overlay }}
          page=${shown} />
        <p class="readout number" data-testid="readout">${readout(heat, map, pointer)}</p>
      </div>
      <aside class="panel" aria-label="Evidence and verdict">
        ${state.q.trim() && html`<${Verdict} feedback=${feedback} />`}
        ${state.q.trim() && html`<${Where} heat=${heat} shares=${account?.shares} chosen=${chosen} />`}
        <${RegionList} regions=${regions} heat=${heat} crop=${crop} onSpot=${setSpot} />
        ${account && html`<${Account} account=${account} onSpot=${setSpot} />`}
        <${Text} info=${info} />
      </aside>
    </div>
  </main>`;
}

function nameOf(heat, { word, token }) {
  if (token >= 0) return `the token ${heat.tokens[token].token}`;
  return word >= 0 ? `the word ${heat.words[word].word}` : "the whole question";
}

/** What the server is to draw. */
function drawnOf(heat, { word, token }) {
  if (token >= 0) return { token: heat.tokens[token].token };
  return word >= 0 ? { word } : {};
}

/** What lies under the pointer: the similarity, its heat, and the word that won there. */
function readout(heat, map, pointer) {
  if (!map) return heat && !heat.leg ? "This page has no vectors, so there is no heat." : "";
  const place = pointer && placeAt(heat, map, ...pointer);
  if (!pointer) return "Point at the page to read its values.";
  if (place < 0) return "Nothing was measured here.";
  const value = map.values[place];
  const token = heat.tokens[map.winners[place]];
  const word = heat.words[token.word]?.word ?? token.token;
  return `similarity ${score(value)}, heat ${score(heatOf(value, heat.scale))}, won by “${word}”`;
}

/** Where one is among the hits, and the way to another one; one that is not there yet is gone to when it comes. */
function useHits({ state, go }, { hits, more }) {
  const here = hits.findIndex((each) => each.document === state.open && each.page === state.page);
  const from = here >= 0 ? here : state.hit - 1;
  const awaited = useRef(null);
  const toHit = (index) => {
    const hit = hits[index];
    if (hit) go(looking(hit.document, hit.page, hit.rank));
    else if (index === hits.length && more) {
      awaited.current = index;
      go({ count: hits.length + 10 }, { replace: true });
    }
  };
  useEffect(() => {
    awaited.current = null;
  }, [state.q, state.open, state.page]);
  useEffect(() => {
    if (awaited.current !== null) toHit(awaited.current);
    awaited.current = null;
  }, [hits]);
  return { from, toHit };
}

/** What keys and buttons do. */
function actionsOf({ state, go }, feedback, info, { from, toHit }) {
  const toPage = (page) => info && page >= 1 && page <= info.pages && go(looking(state.open, page, state.hit));
  const zoom = (direction) => {
    const now = Number(document.querySelector("[data-testid=stage]").dataset.zoom);
    go({ zoom: stepped(now, direction) }, { replace: true });
  };
  const judge = (verdict) => state.q.trim() && feedback.toggle(state.open, state.page, verdict);
  const next = () => toHit(from + 1);
  const previous = () => toHit(from - 1);
  const before = () => toPage(state.page - 1);
  const after = () => toPage(state.page + 1);
  const fit = () => go({ zoom: 0, at: "" }, { replace: true });
  const back = () => go({ view: "search" });
  return {
    from,
    next,
    previous,
    before,
    after,
    zoom,
    fit,
    back,
    keys: {
      j: next,
      k: previous,
      "[": before,
      "]": after,
      ArrowLeft: (event) => (pans(event) ? false : before()),
      ArrowRight: (event) => (pans(event) ? false : after()),
      y: () => judge("relevant"),
      n: () => judge("not_relevant"),
      "+": () => zoom(1),
      "=": () => zoom(1),
      "-": () => zoom(-1),
      0: fit,
      b: () => go({ boxes: !state.boxes }, { replace: true }),
      h: () => go({ heat: !state.heat }, { replace: true }),
      Escape: back,
    },
  };
}

/** Whether an arrow moves the page instead: it has the focus and is wider than its room. */
function pans(event) {
  const stage = event.target.closest("[data-testid=stage]");
  return Boolean(stage) && stage.scrollWidth > stage.clientWidth;
}

const AHEAD = 400; // ms of quiet before the next hit is fetched

/** Has the next hit ready before it is asked for. */
function useAhead({ collection, state, session, changes }, hits) {
  const here = hits.findIndex((each) => each.document === state.open && each.page === state.page);
  const next = here >= 0 ? hits[here + 1] : undefined;
  useEffect(() => {
    if (!next) return undefined;
    const timer = setTimeout(() => {
      const place = JSON.stringify([session.since, changes, collection.name, next.document, next.page]);
      const heat = JSON.stringify([place, state.q.trim()]);
      remembered(place, () => api.page(collection.name, next.document, next.page)).catch(() => {});
      remembered(heat, () => api.heatmap(collection.name, next.document, next.page, state.q.trim())).catch(() => {});
      new Image().src = urls.image(collection.name, next.document, next.page, 1200);
    }, AHEAD);
    return () => clearTimeout(timer);
  }, [next]);
}

export { Viewer };

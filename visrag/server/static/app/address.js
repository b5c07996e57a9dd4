/** The page's state ↔ the address: all of it, so that an address can be sent to a colleague. */
import { useCallback, useEffect, useRef, useState } from "./library.js";
import { within } from "./moving.js";

const VIEWS = ["search", "page", "documents", "verdicts"];

/** By name in the query string: the default (which is left out), whose type is the parameter's. */
const PARAMETERS = {
  view: VIEWS[0],
  collection: "",
  q: "",
  document: [], // filter
  tag: [], // filter, KEY=VALUE
  rank: "fusion",
  count: 10, // hits shown
  open: "", // the document looked at, by name
  page: 1,
  hit: 0, // the rank of the hit that the page was reached from; 0: none
  word: -1, // index into the heatmap's words; -1: the whole question
  token: -1, // index into the heatmap's tokens, of those of the word; -1: the whole word
  zoom: 0, // CSS pixels an inch, as a share of 96; 0: the whole page fits
  at: "", // the middle of what is seen of the page, as fractions "x,y"
  opacity: 100, // of the heat, in percent
  threshold: 0, // heat below is not drawn, in percent
  heat: true,
  boxes: true,
  review: "",
  state: "", // filter of the documents view
};

/** Whole numbers, and the least and the most of each; all others are cut to them. */
const RANGES = {
  count: [1, 1000],
  page: [1, 1e6],
  hit: [0, 1000],
  word: [-1, 1e4],
  token: [-1, 1e4],
  opacity: [0, 100],
  threshold: [0, 95],
};

function read(search) {
  const query = new URLSearchParams(search);
  const state = {};
  for (const [name, initial] of Object.entries(PARAMETERS)) {
    const value = query.get(name);
    if (Array.isArray(initial)) state[name] = query.getAll(name);
    else if (value === null) state[name] = initial;
    else if (typeof initial === "number") state[name] = Number.isFinite(Number(value)) ? Number(value) : initial;
    else if (typeof initial === "boolean") state[name] = value !== "0";
    else state[name] = value;
  }
  if (!VIEWS.includes(state.view)) state.view = VIEWS[0];
  for (const [name, [least, most]] of Object.entries(RANGES))
    state[name] = Math.min(Math.max(least, Math.round(state[name])), most);
  state.zoom = state.zoom > 0 ? within(state.zoom) : 0;
  return state;
}

/** @returns {string} "" or "?…" */
function write(state) {
  const query = new URLSearchParams();
  for (const [name, initial] of Object.entries(PARAMETERS)) {
    const value = state[name];
    if (Array.isArray(initial)) value.forEach((each) => query.append(name, each));
    else if (typeof initial === "boolean") value === initial || query.set(name, value ? "1" : "0");
    else if (value !== initial) query.set(name, String(value));
  }
  const text = query.toString();
  return text && `?${text}`;
}

const PAUSE = 200; // ms: browsers refuse to change the address many times a second

/**
 * The state, `go(change, {replace})` to change it, and `href(change)` for links. A change that replaces (a slider) is
 * shown at once and written to the address a moment later.
 */
function useAddress() {
  const [state, setState] = useState(() => read(location.search));
  const latest = useRef(state);
  const timer = useRef(0);

  const flush = useCallback(() => {
    if (!timer.current) return;
    clearTimeout(timer.current);
    timer.current = 0;
    history.replaceState(null, "", write(latest.current) || location.pathname);
  }, []);

  const go = useCallback((change, { replace = false } = {}) => {
    const next = { ...latest.current, ...change };
    if (replace) {
      latest.current = next;
      timer.current ||= setTimeout(flush, PAUSE);
    } else {
      flush();
      latest.current = next;
      if (write(next) !== location.search) history.pushState(null, "", write(next) || location.pathname);
    }
    setState(next);
  }, []);

  useEffect(() => {
    const back = () => {
      clearTimeout(timer.current);
      timer.current = 0;
      latest.current = read(location.search);
      setState(latest.current);
    };
    addEventListener("popstate", back);
    addEventListener("pagehide", flush);
    return () => {
      removeEventListener("popstate", back);
      removeEventListener("pagehide", flush);
    };
  }, []);

  const href = useCallback((change) => write({ ...latest.current, ...change }) || location.pathname, []);
  return { state, go, href };
}

/** What to change in the state to look at a page; how it is looked at stays as it is. */
const looking = (document, page, hit = 0) => ({ view: "page", open: document, page, hit, word: -1, token: -1, at: "" });

export { looking, useAddress };

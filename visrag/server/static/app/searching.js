/** The hits of the question in the address: asked for as far as they are shown, whatever view shows them. */
import { api } from "./api.js";
import { useEffect, useRef, useState } from "./library.js";

const QUICK = 200; // ms: an index that answers within this is asked while somebody types

const NOTHING = { hits: [], loading: false, error: null, more: false, quick: false, took: null };

/**
 * @returns {{hits: object[], loading: boolean, error: Error|null, more: boolean, quick: boolean, took: number|null}}
 */
function useSearch({ collection, session, state, changes }) {
  const { q, document, tag, rank } = state;
  const count = Math.min(state.count, session.limits.k);
  const asked = { q: q.trim(), document, tag, rank };
  const key = JSON.stringify([asked, session.since, changes]);
  const shown = state.view === "search" || state.view === "page";
  const [found, setFound] = useState({ ...NOTHING, key: "" });
  const latest = useRef(found);
  const keep = (next) => {
    latest.current = next;
    setFound(next);
  };

  useEffect(() => {
    if (!shown) return undefined;
    if (!asked.q) {
      keep({ ...NOTHING, key, quick: latest.current.quick });
      return undefined;
    }
    const before = latest.current;
    const same = before.key === key && !before.error;
    if (same && (before.hits.length >= count || !before.more)) return undefined;
    const stop = new AbortController();
    setFound({ ...before, loading: true });
    const hits = same ? before.hits : [];
    further(collection.name, asked, hits, count, session.limits.k, stop.signal).then(
      (next) => keep({ key, loading: false, error: null, ...next }),
      (error) => stop.signal.aborted || keep({ ...NOTHING, key, error }),
    );
    return () => {
      stop.abort();
      setFound(latest.current);
    };
  }, [key, count, shown]);

  return found;
}

/** Hits after those there are, until there are `count`. */
async function further(collection, asked, before, count, limit, signal) {
  const start = performance.now();
  const answer = await api.search(collection, asked, before.length, count - before.length, signal);
  const hits = [...before, ...answer.hits];
  return {
    hits,
    more: hits.length === count && count < limit,
    quick: performance.now() - start < QUICK,
    took: answer.took_ms,
  };
}

export { useSearch };

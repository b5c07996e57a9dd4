/** The one place that knows which libraries the page uses. Everything `html` shows is escaped. */
import { Fragment, createContext, h, render } from "../vendor/preact-11.2.0.js";
import {
  useCallback,
  useContext,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "../vendor/preact-hooks-11.2.0.js";
import htm from "../vendor/htm-3.1.1.js";

const html = htm.bind(h);

/** What every view needs: {session, collection, state, go, href, notify, fail}. */
const Page = createContext(null);
const usePage = () => useContext(Page);

/**
 * What `load(signal)` resolves to, by `key`; asked for again when the key changes, and not at all while it is null.
 * While a new key loads, the old value is gone.
 * @returns {{value: any, error: Error|null, loading: boolean}}
 */
function useLoaded(key, load) {
  const [found, setFound] = useState({ key: null });
  useEffect(() => {
    if (key === null) return undefined;
    const stop = new AbortController();
    load(stop.signal).then(
      (value) => setFound({ key, value, error: null }),
      (error) => stop.signal.aborted || setFound({ key, error }),
    );
    return () => stop.abort();
  }, [key]);
  const current = key !== null && found.key === key;
  return {
    value: current ? found.value : undefined,
    error: current ? found.error : null,
    loading: key !== null && !current,
  };
}

export {
  Fragment,
  Page,
  html,
  render,
  useCallback,
  useEffect,
  useId,
  useLayoutEffect,
  useLoaded,
  useMemo,
  usePage,
  useRef,
  useState,
};

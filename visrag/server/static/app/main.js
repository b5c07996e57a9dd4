/** The page: who is asking, which view is shown, and what all views share. */
import { useAddress } from "./address.js";
import { Problem, api, whenUnauthorized } from "./api.js";
import { DocumentsView } from "./documents.js";
import { useFeedback } from "./feedback.js";
import { Header, Notice } from "./header.js";
import { Help } from "./help.js";
import { useKeys } from "./keys.js";
import { Page, html, render, useCallback, useEffect, useMemo, usePage, useRef, useState } from "./library.js";
import { SearchView } from "./search.js";
import { SignIn } from "./signin.js";
import { DropArea, useUploads } from "./uploads.js";
import { useSearch } from "./searching.js";
import { VerdictsView } from "./verdicts.js";
import { Viewer } from "./viewer.js";

/** The session, once it is known: null while it is not, and `locked` while the server wants a key. */
function useSession() {
  const [session, setSession] = useState(null);
  const [locked, setLocked] = useState(false);
  const [error, setError] = useState(null);
  const enter = useCallback((found) => {
    setSession({ ...found, since: Date.now() });
    setLocked(false);
    setError(null);
  }, []);
  const refresh = useCallback(() => {
    api.session().then(
      (found) => setSession((before) => before && { ...found, since: before.since }),
      () => {},
    );
  }, []);
  const load = useCallback(() => {
    api.session().then(enter, (problem) => problem.status === 401 || setError(problem));
  }, []);
  useEffect(() => {
    whenUnauthorized(() => setLocked(true));
    load();
  }, []);
  const leave = () =>
    api.signOut().then(() => {
      setSession(null);
      setLocked(true);
    }, setError);
  return { session, locked, error, enter, leave, load, refresh };
}

function App() {
  const { session, locked, error, enter, leave, load, refresh } = useSession();
  const address = useAddress();
  const [notice, setNotice] = useState(null);
  const notify = useCallback((text, bad = false) => setNotice({ text, bad }), []);
  const uploads = useUploads({ session, go: address.go, notify });
  const signOut = () => {
    uploads.clear();
    leave();
  };
  if (error) {
    return html`<main class="lone"><h1>visrag</h1><p role="alert">${error.message}</p>
      <button type="button" onClick=${load}>Try again</button></main>`;
  }
  return html`
    ${locked && html`<${SignIn} onEnter=${enter} />`}
    ${
      session
        ? html`<${Known} session=${session} address=${address} onLeave=${signOut} onChange=${refresh}
      notify=${notify} uploads=${uploads} key=${session.since} />
      <${Notice} notice=${notice} onClose=${() => setNotice(null)} />`
        : html`<main class="lone"><h1>visrag</h1><p>${locked ? "Sign in to search." : "Loading…"}</p></main>`
    }`;
}

/** The page for somebody known. */
function Known({ session, address, onLeave, onChange, notify, uploads }) {
  const { state, go, href } = address;
  const collection = state.collection
    ? session.collections.find(({ name }) => name === state.collection)
    : session.collections[0];
  const [help, setHelp] = useState(false);
  const fail = useCallback((problem) => {
    if (problem instanceof Problem) notify(problem.message, true);
    else if (problem.name !== "AbortError") throw problem;
  }, []);
  const [changes, changed] = useChanges(onChange);
  const page = useMemo(
    () => ({ session, collection, state, go, href, notify, fail, changes, changed }),
    [session, collection, state, changes],
  );
  if (!collection) return html`<${NoCollection} session=${session} address=${address} onLeave=${onLeave} />`;
  return html`<${Page.Provider} value=${page}>
    <a class="skip" href="#content">Skip to the content</a>
    <${Header} onLeave=${onLeave} onHelp=${() => setHelp(true)} />
    <${Views} key=${collection.name} uploads=${uploads} onHelp=${() => setHelp(true)} />
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
  <//>`;
}

/** What is shown where the address names a collection that is not there, or there is none at all. */
function NoCollection({ session, address, onLeave }) {
  const { state, go } = address;
  const [first] = session.collections;
  return html`<main class="lone"><h1>visrag</h1>
    <p role="alert">${
      state.collection
        ? `There is no collection ${state.collection}, or your key does not open it.`
        : "Your key opens no collection."
    }</p>
    <div class="row">
      ${
        first &&
        html`<button type="button" class="primary"
        onClick=${() => go({ collection: first.name, view: "search", document: [], tag: [] })}>
        Go to ${first.name}</button>`
      }
      ${session.access === "keys" && html`<button type="button" onClick=${onLeave}>Sign out</button>`}</div></main>`;
}

const PAUSE = 1000; // ms

/** How often documents have changed (which makes answers old), counted at most once a second. */
function useChanges(onChange) {
  const [changes, setChanges] = useState(0);
  const timer = useRef(0);
  const changed = useCallback(() => {
    timer.current ||= setTimeout(() => {
      timer.current = 0;
      setChanges((count) => count + 1);
      onChange();
    }, PAUSE);
  }, []);
  return [changes, changed];
}

const TITLES = { search: "Search", documents: "Documents", verdicts: "Verdicts" };

/** The view that the address names, in one collection. Hits and verdicts outlive a change of view. */
function Views({ uploads, onHelp }) {
  const page = usePage();
  const { state, go, collection } = page;
  const search = useSearch(page);
  const feedback = useFeedback(page);
  const add = (files) => uploads.add(files, collection.name);
  useKeys({
    "?": onHelp,
    "/": () => {
      if (state.view !== "search") go({ view: "search" });
      setTimeout(() => document.querySelector("[data-testid=search-box]")?.select());
    },
  });
  useEffect(() => {
    const about = state.view === "page" ? `${state.open}, page ${state.page}` : state.q || TITLES[state.view];
    document.title = `${about} – visrag`;
  }, [state.view, state.open, state.page, state.q]);
  useEffect(() => {
    if (document.activeElement === document.body) document.getElementById("content").focus({ preventScroll: true });
  }, [state.view]);
  const View = VIEWS[state.view] ?? SearchView;
  return html`
    ${collection.ingest && html`<${DropArea} onFiles=${add} />`}
    <${View} search=${search} feedback=${feedback} uploads=${{ ...uploads, add }} />`;
}

const VIEWS = { search: SearchView, page: Viewer, documents: DocumentsView, verdicts: VerdictsView };

render(html`<${App} />`, document.getElementById("app"));

/** The list of documents, kept up to date by the server's events. */
import { api, urls } from "./api.js";
import { useEffect, useRef, useState } from "./library.js";
import { plural } from "./text.js";

const PAGE = 100; // documents
const AGAIN = 3000; // ms, after which a stream that was refused is asked for again

/** @returns the documents shown, how many there are, `put` for one that has changed, `gone(id)` for one removed */
function useDocuments({ collection, state, changed, notify }) {
  const [found, setFound] = useState({ documents: [], total: 0, error: null, loading: true });
  const [count, setCount] = useState(PAGE);
  const [missed, setMissed] = useState(0); // times that the stream was cut: the list is asked for again
  const wanted = useRef("");
  wanted.current = state.state;

  useEffect(() => {
    const stop = new AbortController();
    setFound((before) => ({ ...before, loading: true }));
    listed(collection.name, state.state, count, stop.signal).then(
      (listed) => setFound({ ...listed, error: null, loading: false }),
      (error) => stop.signal.aborted || setFound((before) => ({ ...before, error, loading: false })),
    );
    return () => stop.abort();
  }, [collection.name, state.state, count, missed]);

  const put = (document) => setFound((before) => merged(before, document, wanted.current));
  const gone = (id) =>
    setFound((before) => ({
      ...before,
      documents: before.documents.filter((each) => each.id !== id),
      total: before.total - Number(before.documents.some((each) => each.id === id)),
    }));

  useEffect(
    () =>
      listen(
        urls.events(collection.name),
        ({ documents, removed }) => {
          documents.forEach(put);
          const ended = documents.filter((each) => !["queued", "working"].includes(each.state));
          if (ended.length) notify(told(ended));
          if (ended.length || removed.length) changed();
          removed.forEach(gone);
        },
        () => setMissed((times) => times + 1),
      ),
    [collection.name],
  );

  return { ...found, more: () => setCount(count + PAGE), put, gone };
}

/** The first `count` documents. */
async function listed(collection, state, count, signal) {
  const documents = [];
  for (;;) {
    const limit = Math.min(count - documents.length, 1000);
    const answer = await api.documents(collection, { limit, offset: documents.length, state }, signal);
    documents.push(...answer.documents);
    if (documents.length >= Math.min(count, answer.total) || !answer.documents.length)
      return { documents, total: answer.total };
  }
}

/** With a document as it is now: in its place, or at the top where it is new; out where another state is asked for. */
function merged(before, document, state) {
  const index = before.documents.findIndex((each) => each.id === document.id);
  const fits = !state || document.state === state;
  if (index < 0 && !fits) return before;
  const documents = [...before.documents];
  if (!fits) documents.splice(index, 1);
  else if (index < 0) documents.unshift(document);
  else documents[index] = document;
  return { ...before, documents, total: before.total + documents.length - before.documents.length };
}

const ENDS = { indexed: "is ready", partial: "is ready in part", failed: "failed" };

function told(ended) {
  if (ended.length > 1) return `${plural(ended.length, "document")} are done.`;
  return `${ended[0].document} ${ENDS[ended[0].state]}.`;
}

/** Browsers take up a stream again that broke, but not one that was refused, for want of a key perhaps. */
function listen(address, onChanges, onAgain) {
  let source = null;
  let timer = 0;
  let opened = false;
  let ended = false;
  const again = () => {
    if (!ended) timer = setTimeout(open, AGAIN);
  };
  const open = () => {
    source = new EventSource(address);
    source.addEventListener("documents", (event) => onChanges(JSON.parse(event.data)));
    source.onopen = () => {
      if (opened) onAgain();
      opened = true;
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED)
        api.session().then(again, (problem) => problem.status === 401 || again());
    };
  };
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    source.close();
  };
}

export { useDocuments };

/** Verdicts on the pages of the question in the address, for the review in the address. */
import { api } from "./api.js";
import { useEffect, useRef, useState } from "./library.js";

const NAME = "visrag-reviewer";

/** Whose verdicts these are: the key's name, or what somebody calls themselves where no key is asked for. */
function useReviewer(session) {
  const [name, setName] = useState(localStorage.getItem(NAME) ?? "");
  const keep = (text) => {
    localStorage.setItem(NAME, text);
    setName(text);
  };
  return [session.name || name, session.name ? null : keep];
}

let last = Promise.resolve();

/** One after the other, whatever is shown meanwhile: what is kept knows what was loaded and kept before. */
function inTurn(act) {
  const done = last.then(act);
  last = done.catch(() => {});
  return done;
}

/**
 * @returns {{of: Function, mine: Function, judge: Function, toggle: Function, changes: number}} `of(document, page)`:
 * all verdicts on a page, `mine` one's own or null; `judge(document, page, change)`: resolves to whether it is kept.
 * `change(mine)` gives {verdict, note}; what is absent stays.
 */
function useFeedback({ collection, session, state, fail, notify }) {
  const question = state.q.trim();
  const { review } = state;
  const [reviewer, setReviewer] = useReviewer(session);
  const [known, setKnown] = useState({ key: null, list: [] });
  const [changes, setChanges] = useState(0);
  const latest = useRef(known);
  const key = JSON.stringify([collection.name, review, question]);
  const asked = useRef(key);
  asked.current = key;
  const list = known.key === key ? known.list : [];
  const keep = (list) => {
    if (asked.current !== key && latest.current.key !== key) return;
    latest.current = { key, list };
    setKnown(latest.current);
  };
  const load = async (signal) => {
    const { feedback } = await api.feedback(collection.name, { review, question }, signal);
    keep(feedback);
    return feedback;
  };

  useEffect(() => {
    if (!question) return undefined;
    const stop = new AbortController();
    inTurn(() => load(stop.signal)).catch((problem) => stop.signal.aborted || fail(problem));
    return () => stop.abort();
  }, [key]);

  const of = (document, page) => list.filter((each) => each.document === document && each.page === page);
  const mine = (document, page) => of(document, page).find((each) => each.reviewer === reviewer) ?? null;

  const send = async (document, page, change) => {
    const before = latest.current.key === key ? latest.current.list : await load();
    const own = (each) => each.document === document && each.page === page && each.reviewer === reviewer;
    const mine = before.find(own) ?? null;
    const { verdict = mine?.verdict ?? null, note = mine?.note ?? "" } = change(mine);
    const kept = await api.judge(collection.name, { question, document, page, verdict, note, review, reviewer });
    const others = before.filter((each) => !own(each));
    keep(verdict || note ? [...others, kept] : others);
    setChanges((count) => count + 1);
    notify(told(verdict, note, mine));
  };

  const judge = (document, page, change) =>
    inTurn(() => send(document, page, change)).then(
      () => true,
      (problem) => {
        fail(problem);
        return false;
      },
    );

  /** Gives a verdict, or takes back the same one; the note stays. */
  const toggle = (document, page, verdict) =>
    judge(document, page, (mine) => ({ verdict: mine?.verdict === verdict ? null : verdict }));

  return { of, mine, judge, toggle, changes, reviewer, setReviewer };
}

function told(verdict, note, before) {
  if (verdict === (before?.verdict ?? null) && note) return "Note kept.";
  if (verdict) return verdict === "relevant" ? "Judged relevant." : "Judged not relevant.";
  return "Withdrawn.";
}

export { useFeedback };

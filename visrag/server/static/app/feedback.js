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

/**
 * @returns {{of: Function, mine: Function, judge: Function, changes: number}} `of(document, page)`: all verdicts on a
 * page, `mine` one's own or null; `judge(document, page, change)`: resolves when it is kept. `change(mine)` gives
 * {verdict, note}; what is absent stays.
 */
function useFeedback({ collection, session, state, fail, notify }) {
  const question = state.q.trim();
  const { review } = state;
  const [reviewer, setReviewer] = useReviewer(session);
  const [list, setList] = useState([]);
  const [changes, setChanges] = useState(0);
  const latest = useRef(list);
  const last = useRef(Promise.resolve()); // what is being kept: a note and a verdict at once come one after the other
  const key = JSON.stringify([collection.name, review, question]);
  const asked = useRef(key);
  asked.current = key;
  const keep = (next) => {
    latest.current = next;
    setList(next);
  };

  useEffect(() => {
    keep([]);
    if (!question) return undefined;
    const stop = new AbortController();
    api.feedback(collection.name, { review, question }, stop.signal).then(
      ({ feedback }) => keep(feedback),
      (problem) => stop.signal.aborted || fail(problem),
    );
    return () => stop.abort();
  }, [key]);

  const of = (document, page) => ofPage(list, document, page);
  const mine = (document, page) => of(document, page).find((each) => each.reviewer === reviewer) ?? null;

  const send = async (document, page, change) => {
    const mine = ofPage(latest.current, document, page).find((each) => each.reviewer === reviewer) ?? null;
    const { verdict = mine?.verdict ?? null, note = mine?.note ?? "" } = change(mine);
    const kept = await api.judge(collection.name, { question, document, page, verdict, note, review, reviewer });
    if (asked.current === key) {
      const others = latest.current.filter(
        (each) => each.document !== document || each.page !== page || each.reviewer !== reviewer,
      );
      keep(verdict || note ? [...others, kept] : others);
    }
    setChanges((count) => count + 1);
    notify(told(verdict, note, mine));
  };

  const judge = (document, page, change) => {
    last.current = last.current.then(() => send(document, page, change)).catch(fail);
    return last.current;
  };

  /** Gives a verdict, or takes back the same one; the note stays. */
  const toggle = (document, page, verdict) =>
    judge(document, page, (mine) => ({ verdict: mine?.verdict === verdict ? null : verdict }));

  return { of, mine, judge, toggle, changes, reviewer, setReviewer };
}

const ofPage = (list, document, page) => list.filter((each) => each.document === document && each.page === page);

function told(verdict, note, before) {
  if (verdict === (before?.verdict ?? null) && note) return "Note kept.";
  if (verdict) return verdict === "relevant" ? "Judged relevant." : "Judged not relevant.";
  return "Withdrawn.";
}

export { useFeedback };

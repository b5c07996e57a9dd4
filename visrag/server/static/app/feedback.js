/** Verdicts on the pages of the question in the address, for the review in the address. */
import { api } from "./api.js";
import { useEffect, useState } from "./library.js";

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
 * page, `mine` one's own or null; `judge(document, page, {verdict, note})`: resolves when it is kept
 */
function useFeedback({ collection, session, state, fail, notify }) {
  const question = state.q.trim();
  const { review } = state;
  const [reviewer, setReviewer] = useReviewer(session);
  const [list, setList] = useState([]);
  const [changes, setChanges] = useState(0);

  useEffect(() => {
    setList([]);
    if (!question) return undefined;
    const stop = new AbortController();
    api.feedback(collection.name, { review, question }, stop.signal).then(
      ({ feedback }) => setList(feedback),
      (problem) => stop.signal.aborted || fail(problem),
    );
    return () => stop.abort();
  }, [collection.name, review, question]);

  const of = (document, page) => list.filter((each) => each.document === document && each.page === page);
  const mine = (document, page) => of(document, page).find((each) => each.reviewer === reviewer) ?? null;

  const judge = async (document, page, { verdict, note }) => {
    const before = mine(document, page);
    try {
      const kept = await api.judge(collection.name, {
        question,
        document,
        page,
        verdict,
        note,
        review,
        reviewer,
      });
      setList((all) => {
        const others = all.filter(
          (each) => each.document !== document || each.page !== page || each.reviewer !== reviewer,
        );
        return verdict || note ? [...others, kept] : others;
      });
      setChanges((count) => count + 1);
      notify(told(verdict, note, before));
    } catch (problem) {
      fail(problem);
    }
  };

  /** Gives a verdict, or takes back the same one; the note stays. */
  const toggle = (document, page, verdict) => {
    const before = mine(document, page);
    return judge(document, page, { verdict: before?.verdict === verdict ? null : verdict, note: before?.note ?? "" });
  };

  return { of, mine, judge, toggle, changes, reviewer, setReviewer };
}

function told(verdict, note, before) {
  if (verdict === (before?.verdict ?? null) && note) return "Note kept.";
  if (verdict) return verdict === "relevant" ? "Judged relevant." : "Judged not relevant.";
  return "Withdrawn.";
}

export { useFeedback };

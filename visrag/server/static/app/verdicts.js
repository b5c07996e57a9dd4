/** The verdicts of a review, by question, and what can be taken away of them. */
import { looking } from "./address.js";
import { api, urls } from "./api.js";
import { Go } from "./header.js";
import { html, useLoaded, usePage } from "./library.js";
import { Export } from "./search.js";
import { VERDICTS, plural } from "./text.js";

function VerdictsView({ feedback }) {
  const { collection, state, go } = usePage();
  const key = JSON.stringify([collection.name, feedback.changes]);
  const { value, error, loading } = useLoaded(key, (signal) => api.feedback(collection.name, {}, signal));
  const all = value?.feedback ?? [];
  const reviews = [...new Set([state.review, ...all.map(({ review }) => review)])].sort();
  const shown = all.filter(({ review }) => review === state.review);
  const questions = [...Map.groupBy(shown, ({ question }) => question)];
  const address = (format) => urls.verdicts(collection.name, state.review, format);
  return html`<main id="content" class="list-view" tabindex="-1">
    <div class="list-head"><h1>Verdicts</h1>
      <label class="inline">Review <select data-testid="review-filter" value=${state.review}
        onChange=${(event) => go({ review: event.target.value })}>
        ${reviews.map((review) => html`<option key=${review} value=${review}>${review || "no name"}</option>`)}</select>
      </label>
      ${
        shown.length > 0 &&
        html`<span class="row">
        <a class="button" href=${address("csv")} download="verdicts.csv" data-testid="export-csv">CSV</a>
        <a class="button" href=${address("json")} download="verdicts.json" data-testid="export-json">JSON</a></span>`
      }</div>
    ${error && html`<p class="error" role="alert">${error.message}</p>`}
    <p role="status">${
      loading
        ? "Loading…"
        : shown.length
          ? `${plural(shown.length, "verdict")} on ${plural(questions.length, "question")}`
          : "No verdict in this review. Open a hit and press y or n."
    }</p>
    ${questions.map(
      ([question, verdicts]) => html`
      <${Question} key=${question} question=${question} verdicts=${verdicts} />`,
    )}
  </main>`;
}

const when = (time) => new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

function Question({ question, verdicts }) {
  const relevant = new Map(
    verdicts.filter(({ verdict }) => verdict === "relevant").map((each) => [`${each.document} ${each.page}`, each]),
  );
  return html`<section class="judged">
    <div class="judged-head">
      <h2><${Go} to=${{ view: "search", q: question, hit: 0, document: [], tag: [] }}>${question}<//></h2>
      ${
        relevant.size > 0 &&
        html`<${Export} question=${question} pages=${[...relevant.values()]}
        label="PDF of the relevant pages" />`
      }</div>
    <div class="scrolled" tabindex="0" role="region" aria-label=${`Verdicts on ${question}`}><table>
      <thead><tr>
        <th scope="col">Verdict</th><th scope="col">Page</th><th scope="col">Note</th><th scope="col">Reviewer</th>
        <th scope="col">Time</th></tr></thead>
      <tbody>${verdicts.map(
        (each) => html`<tr key=${`${each.document} ${each.page} ${each.reviewer}`} data-testid="verdict-row">
        <td><span class=${`badge ${each.verdict ?? "note"}`}>${VERDICTS[each.verdict] ?? "Note"}</span></td>
        <td><${Go} to=${{ ...looking(each.document, each.page), q: question, document: [], tag: [] }}>
          ${each.document}, page ${each.page}<//></td>
        <td class="note">${each.note}</td><td>${each.reviewer || html`<span class="quiet">no name</span>`}</td>
        <td class="number"><time datetime=${each.time}>${when(each.time)}</time></td></tr>`,
      )}</tbody>
    </table></div>
  </section>`;
}

export { VerdictsView };

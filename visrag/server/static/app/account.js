/** The account of a score: what each token of each leg gave, and where it won. */
import { html } from "./library.js";
import { score } from "./text.js";

const LEGS = {
  tokens: "Words of the text",
  windows: "Whole question",
  patches: "Parts of the picture",
  fulltext: "Full text",
};

function Account({ account, onSpot }) {
  return html`<section aria-labelledby="account"><h2 id="account">Account of the score</h2>
    <table class="account" data-testid="account">
      <thead><tr>
        <th scope="col">Token</th><th scope="col" class="number">Match</th><th scope="col" class="number">Gave</th>
      </tr></thead>
      ${account.legs.map((leg) => html`<${Leg} key=${leg.leg} leg=${leg} onSpot=${onSpot} />`)}
      <tfoot><tr><th scope="row" colspan="2">Score</th>
        <td class="number" data-testid="account-score" data-value=${account.score}>${score(account.score)}</td>
      </tr></tfoot>
    </table>
    <p class="quiet">A token gave its match times the leg's weight. Point at a token to see where it won.</p>
  </section>`;
}

/** Tokenizers mark the parts of a word, each in its way. */
const named = (token) => token.replace(/^##/, "…").replace(/^[▁Ġ ]+/, "");

function Leg({ leg, onSpot }) {
  return html`<tbody>
    <tr class="leg"><th scope="rowgroup" colspan="2">${LEGS[leg.leg] ?? leg.leg}
        <span class="quiet"> weight ${score(leg.weight)}${leg.encoder && ` · ${leg.encoder}`}</span></th>
      <td class="number">${score(leg.weight * leg.score)}</td></tr>
    ${leg.token_scores.map(
      (token, index) => html`<tr key=${index} data-testid="account-row"
        data-value=${leg.weight * token.score}
        onMouseEnter=${() => onSpot(token.box)} onMouseLeave=${() => onSpot(null)}>
      <th scope="row">${
        token.box
          ? html`<button type="button" class="token" onFocus=${() => onSpot(token.box)}
        onBlur=${() => onSpot(null)}
        aria-label=${`${named(token.token)}: show where it won`}>${named(token.token)}</button>`
          : named(token.token)
      }</th>
      <td class="number">${score(token.score)}</td>
      <td class="number">${score(leg.weight * token.score)}</td></tr>`,
    )}
  </tbody>`;
}

export { Account };

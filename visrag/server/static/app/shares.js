/** What each word of the question gave to a score: a bar, and the same in words. */
import { html } from "./library.js";
import { score as shown } from "./text.js";

const NAMED = 4; // shares written out; the others are in the bar's tooltips

/** The bar is as long as the score is beside the best one; words that gave less than nothing have no part in it. */
function Shares({ shares, score, best }) {
  const given = shares.filter((share) => share.score > 0);
  const sum = given.reduce((total, share) => total + share.score, 0);
  const length = best > 0 ? Math.min(Math.max(score / best, 0.02), 1) : 0;
  return html`<div class="shares">
    <div class="bar" aria-hidden="true"><div class="bar-filled" style=${{ width: `${length * 100}%` }}>
      ${given.map(
        (share, index) => html`<span key=${index} class="segment" style=${{ flexGrow: share.score / sum }}
        title=${`${share.word}: ${shown(share.score)}`}></span>`,
      )}</div></div>
    <p class="legend">${shares.slice(0, NAMED).map(
      (share, index) => html`
      <span key=${index} class="share">${share.word} <span class="number">${shown(share.score)}</span></span>`,
    )}
      ${
        shares.length > NAMED &&
        html`<span class="share quiet"
        title=${shares
          .slice(NAMED)
          .map((share) => `${share.word}: ${shown(share.score)}`)
          .join(", ")}>
        ${shares.length - NAMED} more</span>`
      }</p>
  </div>`;
}

export { Shares };

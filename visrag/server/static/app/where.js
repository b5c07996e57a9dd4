/** What of the question is drawn on the page, and how. */
import { COLOURS, tokensOf } from "./heat.js";
import { html, useLayoutEffect, usePage, useRef } from "./library.js";
import { score } from "./text.js";

/** `heat` null: not known yet. `shares`: of the score, by word. `chosen`: {word, token}, −1 for all. */
function Where({ heat, shares, chosen }) {
  const { state, go } = usePage();
  const show = (change) => go(change, { replace: true });
  const check = (name, text) => html`<label class="check"><input type="checkbox" data-testid=${name}
    checked=${state[name]} onChange=${(event) => show({ [name]: event.target.checked })} /> ${text}</label>`;
  const slider = (name, text, most) => html`<label class="slider">${text}
    <input type="range" min="0" max=${most} step="5" data-testid=${name} value=${state[name]} disabled=${!state.heat}
      onInput=${(event) => show({ [name]: Number(event.target.value) })} />
    <span class="number">${state[name]} %</span></label>`;
  return html`<section aria-labelledby="where"><h2 id="where">Where it matches</h2>
    <${Chips} heat=${heat} shares=${shares ?? []} chosen=${chosen} />
    ${heat?.leg && html`<${Scale} scale=${heat.scale} />`}
    <div class="controls">
      ${check("heat", "Heat")}
      ${check("boxes", "Boxes")}
      ${slider("opacity", "Opacity", 100)}
      ${slider("threshold", "From heat", 95)}
    </div>
  </section>`;
}

/** The whole question, then its words, those that gave most first; then the tokens of the chosen one, if several. */
function Chips({ heat, shares, chosen }) {
  const { go } = usePage();
  const given = (word) => shares.find((share) => share.start === word.start)?.score ?? null;
  const words = (heat?.words ?? []).map((word, index) => ({ ...word, index, given: given(word) }));
  words.sort((a, b) => (b.given ?? -Infinity) - (a.given ?? -Infinity) || a.index - b.index);
  const choose = (word, token = -1) => go({ word, token }, { replace: true });
  const tokens = chosen.word >= 0 ? tokensOf(heat, chosen.word) : [];
  const chip = (index, text, share) => html`<button key=${index} type="button" class="chip" data-testid="chip"
    data-word=${index} aria-pressed=${chosen.word === index ? "true" : "false"} onClick=${() => choose(index)}>
    ${text}${share !== null && html` <span class="number">${score(share)}</span>`}</button>`;
  return html`<div class="chips" role="group" aria-label="Words of the question, by what they gave">
    ${chip(-1, "Whole question", null)}
    ${words.map((word) => chip(word.index, word.word, word.given))}</div>
    ${
      tokens.length > 1 &&
      html`<div class="chips" role="group" aria-label=${`Tokens of ${heat.words[chosen.word].word}`}>
      ${tokens.map(
        ({ token, index }) => html`<button key=${index} type="button" class="chip part" data-testid="token-chip"
        aria-pressed=${chosen.token === index ? "true" : "false"}
        onClick=${() => choose(chosen.word, chosen.token === index ? -1 : index)}>${token}</button>`,
      )}</div>`
    }`;
}

/** The colours from no heat to full heat, and the similarities they stand for. */
function Scale({ scale }) {
  const canvas = useRef(null);
  useLayoutEffect(() => {
    const context = canvas.current.getContext("2d");
    COLOURS.forEach(([red, green, blue], step) => {
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(step, 0, 1, 1);
    });
  }, []);
  return html`<div class="scale"><span class="number">${score(scale.low)}</span>
    <canvas ref=${canvas} width="256" height="1" role="img"
      aria-label=${`Colours from white, similarity ${score(scale.low)}, to orange, ${score(scale.high)}`}></canvas>
    <span class="number">${score(scale.high)}</span>
    <span class="quiet">similarity, the same for all words</span></div>`;
}

export { Where };

/**
 * Creates the ten bars.
 * @param {HTMLElement} list
 * @returns {(shares?: ArrayLike<number>) => void} shows how sure the model is of each digit, or nothing.
 */
export function createChart(list) {
  const rows = Array.from({ length: 10 }, (_, digit) => {
    const row = document.createElement('li');
    row.innerHTML = `<span>${digit}</span><span class="track"><span class="bar"></span></span><span class="share"></span>`;
    list.append(row);
    return { row, bar: row.querySelector('.bar'), share: row.querySelector('.share') };
  });
  return (shares) => {
    const surest = shares && Math.max(...shares);
    for (const [digit, { row, bar, share }] of rows.entries()) {
      const value = shares?.[digit] ?? 0;
      bar.style.setProperty('--share', value.toFixed(3));
      share.textContent = shares ? `${Math.round(100 * value)} %` : '';
      row.setAttribute('aria-current', String(shares !== undefined && value === surest));
    }
  };
}

import Table from 'cli-table3';

/** Lists the faces of each image and says how fast they were found. */
export function formatReport(images) {
  const table = new Table({
    head: ['image', 'face', 'score', 'left', 'top', 'width', 'height'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { path, faces } of images) {
    if (faces.length === 0) table.push([path, 'none', '', '', '', '', '']);
    for (const [index, { score, left, top, right, bottom }] of faces.entries()) {
      const numbers = [left, top, right - left, bottom - top].map(Math.round);
      table.push([index === 0 ? path : '', index + 1, score.toFixed(3), ...numbers]);
    }
  }
  const written = images.map(({ out, tookMs }) => `${out}: found in ${tookMs.toFixed(1)} ms`);
  return [table.toString(), ...written].join('\n');
}

/**
 * Draws boxes over a video.
 * @param {HTMLCanvasElement} canvas lies on the video.
 * @param {{ width: number, height: number }} size of the video's frames.
 * @param {readonly import('./detect.js').Face[]} faces
 */
export function drawFaces(canvas, { width, height }, faces) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  context.strokeStyle = '#39ff14';
  context.lineWidth = Math.max(2, Math.min(width, height) / 150);
  for (const face of faces) {
    context.beginPath();
    context.roundRect(face.left, face.top, face.width, face.height, face.width / 10);
    context.stroke();
  }
}

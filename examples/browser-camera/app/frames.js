/**
 * Gives work the newest frame of a video whenever it is free. Frames that come while it is not are left out, so that what
 * is shown is never older than one run.
 * @param {HTMLVideoElement} video
 * @param {(counts: { seen: number, dropped: number }) => Promise<void>} work `seen` and `dropped` count frames since
 * the start.
 * @returns {() => void} stops it.
 */
export function followFrames(video, work) {
  let first;
  let done = 0;
  let isBusy = false;
  let isOver = false;
  let handle = 0;
  const onFrame = (_now, { presentedFrames }) => {
    handle = video.requestVideoFrameCallback(onFrame);
    if (isBusy) return;
    first ??= presentedFrames;
    done += 1;
    isBusy = true;
    const seen = presentedFrames - first + 1;
    void work({ seen, dropped: seen - done }).finally(() => {
      isBusy = isOver;
    });
  };
  handle = video.requestVideoFrameCallback(onFrame);
  return () => {
    isOver = isBusy = true;
    video.cancelVideoFrameCallback(handle);
  };
}

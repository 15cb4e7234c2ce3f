/**
 * What comes before and after a model: images, scores, boxes, sound and running state. Pure functions on typed arrays,
 * tensors, and what a browser can draw; decoding files is the host's part.
 * @module inlay/process
 */
export { audioToMono, type AudioOptions, type AudioSource } from './audio.ts';
export { fitImage, type FitOptions, type ImageFit, type ImageFitting } from './fit.ts';
export { frameAudio, hannWindow, type FrameOptions, type HannOptions } from './frames.ts';
export type { PixelImage } from './image.ts';
export type { DrawableImage, ImageSource } from './image-source.ts';
export { imagesToTensor, imageToTensor, type ImageDType, type ImageTensorOptions } from './image-tensor.ts';
export { melSpectrogram, type MelOptions } from './mel.ts';
export { mixToMono } from './mono.ts';
export { argmax, topK, type Ranked, type TopKOptions } from './rank.ts';
export { readPixels } from './read-pixels.ts';
export { resampleAudio, type ResampleOptions } from './resample.ts';
export { resizeImage, type ImageFilter, type ResizedImage, type ResizeOptions } from './resize.ts';
export { softmax, type AxisOptions } from './softmax.ts';
export {
  createStateful,
  type RunnableModel,
  type StatefulModel,
  type StatefulOptions,
  type StatefulRunOptions,
} from './stateful.ts';
export {
  nonMaximumSuppression,
  type BoxFormat,
  type SuppressionInput,
  type SuppressionOptions,
} from './suppress.ts';

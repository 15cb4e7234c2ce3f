const { getDefaultConfig } = require('expo/metro-config');

const config = getDefaultConfig(__dirname);
// Models are files of the app, as images are.
config.resolver.assetExts.push('onnx');

module.exports = config;

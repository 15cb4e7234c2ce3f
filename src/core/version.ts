/** Version of this package: releases may ask for a lowest one. */
export const SDK_VERSION = '0.1.0';

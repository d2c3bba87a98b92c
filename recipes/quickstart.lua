-- Two views of a Landsat 7 scene by random features, fused into one embedding. Needs no weights.
local terrane = require "terrane"

local p = terrane.params {
    scene = { default = "build/demo/L7_ETMs.tif", help = "GeoTIFF to embed" },
    features = { default = 256, min = 8, max = 4096, help = "features per encoder" },
}

return terrane.embed {
    title = "Landsat 7 demo: two random-feature encoders as one embedding",
    scene = terrane.scene { p.scene, sensor = "landsat7" },
    encoders = {
        terrane.encoder { "rcf", features = p.features, cell = 4, patch = 3 }, -- fine texture
        terrane.encoder { "rcf", features = p.features, cell = 8, patch = 7, seed = 2 }, -- coarse texture
    },
    fusion = terrane.concat { cell = 4, l2 = true },
    tile = 128,
    overlap = 32,
    export = {
        terrane.geotiff { "embedding.tif", compression = "deflate", float16 = true },
        terrane.preview "preview.png",
    },
}

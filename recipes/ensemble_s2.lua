-- A Sentinel-2 scene through a trained and an untrained encoder, side by side on one grid of 8 x 8 pixels.
local terrane = require "terrane"

local p = terrane.params {
    scene = { default = "data/sentinel2.tif", help = "Sentinel-2 L2A GeoTIFF, reflectance * 10000" },
    weights = { default = "weights/galileo-nano/encoder.pt", help = "Galileo nano encoder weights" },
    month = { default = -1, min = -1, max = 11,
              help = "month of acquisition, 0 is January; -1: by the date in the scene's name, else June" },
}

return terrane.embed {
    title = "Sentinel-2: Galileo nano beside random features",
    scene = terrane.scene { p.scene, sensor = "sentinel2-l2a", nodata = 0 },
    encoders = {
        terrane.encoder { "galileo-nano", weights = p.weights, patch = 8, month = p.month,
                          remove_position = true },
        terrane.encoder { "rcf", features = 128, patch = 5, cell = 8, weight = 0.5 },
    },
    fusion = terrane.concat { cell = 8, l2 = true },
    export = { "embedding.tif", "preview.png" },
}

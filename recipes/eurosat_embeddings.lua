-- One Galileo nano vector per EuroSAT image (JPEG, RGB), ready for a k-NN or a linear probe.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/eurosat-rgb", help = "folder of 64 x 64 RGB images, one folder per class" },
    weights = { default = "weights/galileo-nano/encoder.pt", help = "Galileo nano encoder weights" },
    month = { default = 5, min = 0, max = 11, help = "month of acquisition, 0 is January" },
}

return terrane.embed {
    title = "EuroSAT RGB: one Galileo nano vector per image",
    -- EuroSAT's bytes 0..255 show reflectances up to 0.275
    scene = terrane.images { p.data, sensor = "rgb", scale = 0.275 / 255, unit = "reflectance" },
    encoders = {
        terrane.encoder { "galileo-nano", weights = p.weights, patch = 8, month = p.month, pool = "mean" },
    },
    export = { terrane.npy "embeddings.npy" },
}

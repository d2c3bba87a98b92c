-- How much of EuroSAT's classes can be read off Galileo nano as it is: k-NN, a linear layer and logistic regression on
-- one vector per image. Features are kept, so that a second run needs no encoder.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/eurosat-rgb", help = "folder of 64 x 64 RGB images with a split.csv" },
    weights = { default = "weights/galileo-nano/encoder.pt", help = "Galileo nano encoder weights" },
    month = { default = 5, min = 0, max = 11, help = "month of acquisition, 0 is January" },
    seed = { default = 0, min = 0, help = "of the linear layer's order of samples" },
}

return terrane.probe {
    title = "EuroSAT RGB: probes of Galileo nano, frozen",
    -- EuroSAT's bytes 0..255 show reflectances up to 0.275
    data = terrane.dataset { p.data, sensor = "rgb", scale = 0.275 / 255, unit = "reflectance" },
    encoders = terrane.encoder { "galileo-nano", weights = p.weights, patch = 8, month = p.month },
    probes = {
        terrane.knn { k = 5, center = true },
        terrane.linear_probe { batch_norm = true, epochs = 200, weight_decay = 0.3, rates = { 0.003, 0.01, 0.03 } },
        terrane.logistic { standardize = true, refit = true, max_iterations = 1000 },
    },
    seed = p.seed,
}

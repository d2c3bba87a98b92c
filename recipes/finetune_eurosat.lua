-- Galileo nano fine-tuned on EuroSAT, all of it: a linear layer on the mean of its tokens, flips and turns, a learning
-- rate that falls towards the first layers. Minutes on a CPU. Stopped and started again, it goes on.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/eurosat-rgb", help = "folder of 64 x 64 RGB images with a split.csv" },
    weights = { default = "weights/galileo-nano/encoder.pt", help = "Galileo nano encoder weights" },
    month = { default = 5, min = 0, max = 11, help = "month of acquisition, 0 is January" },
    epochs = { default = 12, min = 1, max = 10000, help = "times that all training images are seen" },
    seed = { default = 0, min = 0, help = "of everything that is left to chance" },
}

return terrane.train {
    title = "EuroSAT RGB: Galileo nano fine-tuned end to end",
    -- EuroSAT's bytes 0..255 show reflectances up to 0.275
    data = terrane.dataset { p.data, sensor = "rgb", scale = 0.275 / 255, unit = "reflectance", flip = 0.5,
                             rotate = true },
    encoders = terrane.encoder { "galileo-nano", weights = p.weights, patch = 8, month = p.month },
    head = terrane.linear { batch_norm = true },
    loss = terrane.cross_entropy { label_smoothing = 0.1 },
    optimizer = terrane.adamw { rate = 3e-4, weight_decay = 0.05 },
    schedule = terrane.cosine { warmup_epochs = math.min(0.5, p.epochs / 10) },
    layer_decay = 0.75,
    head_rate = 20,
    epochs = p.epochs,
    batch = 32,
    clip = 1,
    seed = p.seed,
}

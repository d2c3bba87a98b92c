-- A small Hiera for 64 x 64 images, trained on EuroSAT from scratch: no weights are needed.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/eurosat-rgb", help = "folder of 64 x 64 RGB images with a split.csv" },
    epochs = { default = 50, min = 1, max = 10000, help = "times that all training images are seen" },
    seed = { default = 0, min = 0, help = "of weights, order, flips and turns" },
}

return terrane.train {
    title = "EuroSAT RGB: a small Hiera from scratch",
    data = terrane.dataset { p.data, sensor = "rgb", flip = 0.5, rotate = true },
    encoders = terrane.encoder { "hiera-tiny", weights = "fresh", img_size = 64, dim = 32, heads = 1,
                                 stages = "1,2,3,1" },
    head = terrane.linear {},
    loss = terrane.cross_entropy { label_smoothing = 0.1 },
    optimizer = terrane.adamw { rate = 2e-3, weight_decay = 0.05 },
    schedule = terrane.cosine { warmup_epochs = math.min(5, p.epochs / 10) },
    drop_path = 0.1,
    epochs = p.epochs,
    batch = 32,
    clip = 1,
    seed = p.seed,
}

-- A convolutional network of the recipe's own, trained on EuroSAT from scratch: three stages of residual blocks.
local terrane = require "terrane"

local p = terrane.params {
    data = { default = "data/eurosat-rgb", help = "folder of 64 x 64 RGB images with a split.csv" },
    channels = { default = 24, min = 4, max = 512, help = "channels of the first stage; they double with every stage" },
    epochs = { default = 30, min = 1, max = 10000, help = "times that all training images are seen" },
    seed = { default = 0, min = 0, help = "of weights, order, flips and turns" },
}

local function residual(g, x, channels)
    local y = g.relu(g.batch_norm(g.conv(x, { channels = channels, bias = false })))
    y = g.batch_norm(g.conv(y, { channels = channels, bias = false }))
    return g.relu(g.add(x, y))
end

local network = terrane.graph(function(g, x)
    for stage = 0, 2 do
        local channels = p.channels * 2 ^ stage
        x = g.relu(g.batch_norm(g.conv(x, { channels = channels, stride = 2, bias = false })))
        x = residual(g, x, channels)
    end
    return g.mean(x)
end)

return terrane.train {
    title = "EuroSAT RGB: a residual network of the recipe's own, from scratch",
    data = terrane.dataset { p.data, sensor = "rgb", flip = 0.5, rotate = true },
    network = network,
    head = terrane.linear { dropout = 0.1 },
    loss = terrane.cross_entropy { label_smoothing = 0.1 },
    optimizer = terrane.adamw { rate = 2e-3, weight_decay = 0.05 },
    schedule = terrane.cosine { warmup_epochs = math.min(2, p.epochs / 10) },
    epochs = p.epochs,
    batch = 32,
    seed = p.seed,
}

local terrane = require "terrane"
local net = terrane.graph(function(g, x)
  local y = g.relu(g.batch_norm(g.conv(x, { channels = 4, kernel = 3, stride = 2, padding = 1, name = "a" })))
  y = g.add(y, g.conv { y, channels = 4, bias = false })
  y = g.attention_block(g.position(g.layer_norm(y)), { heads = 2, mlp_ratio = .5, layer_scale = true })
  y = g.map(g.tokens(g.resize(y, { scale = 2, mode = "nearest" })))
  return g.linear(g.concat { g.mean(y), g.max(g.max_pool(y, { size = 2 })) }, { channels = 3 })
end)
return terrane.train { data = terrane.dataset { "d", labels = "l", chip = 32, bands = { "B04" }, sensor = "rgb", scale = 1,
    unit = "byte", limit = { train = 8 }, crop = 8, flip = { x = .5 }, rotate = true, ignore = 9, classes = { "a", "b" } },
  encoders = terrane.encoder { "rcf", weights = "fresh" }, head = net, loss = terrane.ce_dice { balance = true },
  optimizer = terrane.sgd { momentum = .5 }, schedule = terrane.step { every = 3, warmup_epochs = .5 }, epochs = 2,
  freeze = { "*.bias" }, layer_decay = .5, metric = "mean_iou", clip = 1, average = .9, patience = 1 }

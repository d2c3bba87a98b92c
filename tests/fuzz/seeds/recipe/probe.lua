local terrane = require "terrane"
return terrane.probe { data = terrane.dataset { "d", partition = "p", resize = 8, antialias = true, fill = 0, date = 1 },
  encoders = { terrane.encoder { "rcf", pool = "mean" } }, fusion = terrane.concat { l2 = true }, seed = 3, batch = 2,
  probes = { terrane.knn { k = 3, distance = "l2" }, terrane.logistic { grid = { 1, 2 }, name = "c" },
    terrane.linear_probe { rates = .1, epochs = 2 } }, cache = "c", strict = true }

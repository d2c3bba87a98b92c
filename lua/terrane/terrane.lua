-- terrane: the vocabulary of recipes. Constructors check their fields and give handles; finish turns the handle that a
-- recipe returns into plain tables for C.
local host, check, schema = host, import "check", import "schema"
local format = string.format

local by_name = {}
for _, constructor in ipairs(schema) do
    by_name[constructor.name] = constructor
end

-- ---- the one argument of a constructor ----

local function is_positional(constructor)
    for _, field in ipairs(constructor.fields or {}) do
        if field.positional then
            return true
        end
    end
    return false
end

-- Refuses anything but one plain table; a text alone stands for { text } where the first value is positional.
local function argument(where, constructor, count, value)
    if count == 1 and type(value) == "string" and is_positional(constructor) then
        return { value }
    end
    if count ~= 1 or type(value) ~= "table" or check.data(value) then
        local got = count == 1 and check.show(value) or count .. " values"
        check.fail(where, nil, nil, format("got %s; wanted one table: terrane.%s { ... }", got, constructor.name))
    end
    return value
end

-- ---- rules beyond single fields ----

local function check_names(where, list, item_label, names)
    local seen = {}
    for i, name in ipairs(names) do
        if seen[name] then
            check.fail(where, list, i, format("%s %s stands twice", item_label, check.show(name)))
        end
        seen[name] = true
    end
end

local function check_output(where, field, item, path, extensions)
    local lower = path:lower()
    local known = false
    for _, extension in ipairs(extensions) do
        known = known or lower:sub(-#extension - 1) == "." .. extension
    end
    if not known then
        check.fail(where, field, item, format("%s does not end in .%s", check.show(path),
                                              table.concat(extensions, " or .")))
    end
    local up = ("/" .. path .. "/"):find("/../", 1, true)
    if path:sub(1, 1) == "/" or up then
        check.fail(where, field, item,
                   format("%s leaves the output folder; give a name below it (--out chooses the folder)",
                          check.show(path)))
    end
end

local function all_extensions()
    local list = {}
    for _, constructor in ipairs(schema) do
        for _, extension in ipairs(constructor.extensions or {}) do
            list[#list + 1] = extension
        end
    end
    return list
end

-- Whether each of these fields of an encoder is given.
local function given(encoder)
    return { pool = encoder.pool ~= nil, weight = encoder.weight ~= 1, date = encoder.date ~= nil,
             remove_position = encoder.remove_position }
end

local function refuse_fields(encoder, fields, job)
    local present = given(encoder)
    for _, field in ipairs(fields) do
        if present[field] then
            check.fail(encoder, field, nil, format("field '%s' has no meaning in terrane.%s; leave it out", field, job))
        end
    end
end

-- Texts in `export` stand for the writer of their extension, with its defaults.
local function complete_exports(where, data)
    local paths = {}
    for i, item in ipairs(data.export) do
        if type(item) == "string" then
            check_output(where, "export", i, item, all_extensions())
            item = { path = item, line = where.line, constructor = where.constructor, field = "export", item = i }
            data.export[i] = item
        end
        paths[i] = item.path
    end
    check_names(where, "export", "the file", paths)
end

-- Images and tile_vectors give one vector each, everything else a vector per cell: all encoders follow.
local function complete_pools(where, data)
    local pooled = data.tile_vectors or data.scene.kind == "images"
    data.pools = {}
    for i, encoder in ipairs(data.encoders) do
        data.pools[i] = encoder.pool or (pooled and "mean" or "none")
        if pooled and encoder.pool == "none" then
            check.fail(encoder, "pool", nil, format("field 'pool' is 'none', but %s; wanted 'mean' or 'cls'",
                                                    data.tile_vectors and "tile_vectors asks for one vector per window"
                                                    or "each image gives one vector"))
        elseif not pooled and data.pools[i] ~= "none" then
            check.fail(encoder, "pool", nil,
                       format("field 'pool' is '%s', but the scene gets a vector per cell; leave it out, or set "
                                  .. "tile_vectors = true in terrane.embed", encoder.pool))
        end
    end
    if data.tile_vectors and data.scene.kind == "images" then
        check.fail(where, "tile_vectors", nil,
                   "field 'tile_vectors' is for a scene; images give one vector each anyway")
    end
end

local rules = {}

function rules.embed(where, data)
    data.fusion = data.fusion or { constructor = "concat", l2 = false }
    if data.tile and data.overlap >= data.tile then
        check.fail(where, "overlap", nil, format("field 'overlap' is %d; wanted less than the tile, %d", data.overlap,
                                                 data.tile))
    end
    complete_exports(where, data)
    complete_pools(where, data)
end

-- The files of a series: one list of all, and how many each date has.
local function flatten_dates(where, data)
    if not data.dates then
        if not data.path then
            check.fail(where, nil, nil, "the first value (path) is missing; wanted a list of paths, or a field 'dates'")
        end
        return
    end
    if data.path then
        check.fail(where, "dates", nil, "field 'dates' names the files; leave out the first values")
    end
    data.path, data.date_files = {}, {}
    for i, files in ipairs(data.dates) do
        data.date_files[i] = #files
        table.move(files, 1, #files, #data.path + 1, data.path)
    end
    if data.acquired and #data.acquired ~= #data.dates then
        check.fail(where, "acquired", nil, format("field 'acquired' has %d dates, and field 'dates' %d", #data.acquired,
                                                  #data.dates))
    end
end

function rules.reconstruct(where, data)
    local encoder = data.encoder
    check_output(where, "export", nil, data.export, { "png" })
    if data.mask_ratio == 1 then
        check.fail(where, "mask_ratio", nil, "field 'mask_ratio' is 1; wanted less: some patches must be seen")
    end
    refuse_fields(encoder, { "pool", "weight", "remove_position" }, "reconstruct")
end

local function check_scale(where, data)
    if (data.offset or data.unit) and not data.scale then
        local field = data.offset and "offset" or "unit"
        check.fail(where, field, nil,
                   format("field '%s' says what scale gives; wanted a field 'scale' beside it", field))
    end
end

local function rule_scene(where, data)
    if data.kind == "scene" then
        flatten_dates(where, data)
    end
    check_names(where, nil, "the path", data.path)
    if data.location and (data.location[1] < -90 or data.location[1] > 90) then
        check.fail(where, "location", nil, format("field 'location' has the latitude %.14g; wanted -90 to 90, latitude "
                                                  .. "first", data.location[1]))
    end
    check_scale(where, data)
end
rules.scene, rules.images = rule_scene, rule_scene

function rules.sensor(where, data)
    local names = {}
    for i, band in ipairs(data.bands) do
        names[i] = band.name
    end
    check_names(where, "bands", "the band", names)
end

local function rule_export(where, data)
    check_output(where, nil, nil, data.path, by_name[data.constructor].extensions)
end
rules.geotiff, rules.npy, rules.preview = rule_export, rule_export, rule_export

-- ---- rules of learning ----

-- classes = 3 is a count, classes = { "a", "b", "c" } are names.
local function split_classes(where, data)
    local classes = data.classes
    if classes and #classes == 1 and math.type(classes[1]) then
        data.class_count, data.classes = classes[1], nil
        return
    end
    for i, name in ipairs(classes or {}) do
        if math.type(name) then
            check.fail(where, "classes", i, format("field 'classes[%d]' is %s; wanted a name, or one number alone", i,
                                                   check.show(name)))
        end
    end
    check_names(where, "classes", "the class", classes or {})
    data.class_count = classes and #classes
end

function rules.dataset(where, data)
    check_scale(where, data)
    split_classes(where, data)
    for _, field in ipairs { "chip", "block", "shares" } do
        if data[field] and not data.labels then
            check.fail(where, field, nil, format("field '%s' is for a scene; wanted a field 'labels' beside it", field))
        end
    end
    if data.shares and data.shares.valid + data.shares.test >= 1 then
        check.fail(where, "shares", nil, "field 'shares' leaves nothing to train on; wanted less than 1 together")
    end
    if type(data.flip) ~= "table" then
        data.flip = { x = data.flip or 0, y = data.flip or 0 }
    end
    data.limit = data.limit or {}
end

local function rule_balance(where, data)
    if data.balance and data.class_weights then
        check.fail(where, "balance", nil, "field 'balance' makes the weights; leave out 'class_weights'")
    elseif data.balanced and (data.balance or data.class_weights) then
        check.fail(where, "balanced", nil, "field 'balanced' is a form without class weights; leave those out")
    end
end
rules.cross_entropy, rules.dice, rules.ce_dice, rules.jaccard, rules.binary =
    rule_balance, rule_balance, rule_balance, rule_balance, rule_balance

local function check_figure(where, data)
    if #data.name > 64 or not data.name:find("^[%a_][%w_]*$") then
        check.fail(where, "name", nil, format("field 'name' is %s; wanted letters, digits and _",
                                              check.show(data.name)))
    end
end

local function rule_probe(default)
    return function(where, data)
        data.name = data.name or default(data)
        check_figure(where, data)
    end
end
rules.knn = rule_probe(function(data) return "knn" .. data.k end)
rules.logistic = rule_probe(function() return "logistic" end)
rules.linear_probe = rule_probe(function() return "linear" end)

-- A constructor's defaults, where a recipe leaves it out.
local function default_of(name)
    local where = { line = 0, constructor = name }
    local data = check.fields(where, by_name[name], {})
    data.kind, data.constructor = by_name[name].kind, name
    if rules[name] then
        rules[name](where, data)
    end
    return data
end

local meaningless = { "date", "remove_position" }

local function complete_probes(where, data)
    local kinds, names = {}, {}
    for i, probe in ipairs(data.probes or { default_of "knn", default_of "linear_probe", default_of "logistic" }) do
        if kinds[probe.constructor] then
            check.fail(where, "probes", i, format("a second terrane.%s; wanted each kind of probe once",
                                                  probe.constructor))
        end
        kinds[probe.constructor], names[i] = probe, probe.name
    end
    check_names(where, "probes", "the name", names)
    data.probes = kinds
end

function rules.probe(where, data)
    local samples = data.data
    complete_probes(where, data)
    data.fusion = data.fusion or default_of "concat"
    if samples.rotate or samples.flip.x > 0 or samples.flip.y > 0 then
        check.fail(samples, samples.rotate and "rotate" or "flip", nil,
                   format("field '%s' has no meaning in terrane.probe, which sees each image once; leave it out",
                          samples.rotate and "rotate" or "flip"))
    end
    data.pools = {}
    for i, encoder in ipairs(data.encoders) do
        refuse_fields(encoder, meaningless, "probe")
        data.pools[i] = encoder.pool or "mean"
        if encoder.pool == "none" then
            check.fail(encoder, "pool", nil, "field 'pool' is 'none', but a probe takes one vector an image; wanted "
                           .. "'mean' or 'cls'")
        end
    end
end

-- Heads that want the cells of an image, not one vector.
local wants_cells = { attention_pool = true, fcn = true, upernet = true }

local function complete_encoders(data)
    local cells = wants_cells[data.head.constructor]
    data.pools = {}
    for i, encoder in ipairs(data.encoders) do
        refuse_fields(encoder, meaningless, "train")
        data.pools[i] = encoder.pool or ((cells or data.head.kind == "graph") and "none" or "mean")
        if cells and data.pools[i] ~= "none" then
            check.fail(encoder, "pool", nil, format("field 'pool' is '%s', but terrane.%s takes the cells of an image; "
                                                        .. "leave it out", encoder.pool, data.head.constructor))
        end
    end
end

-- What speaks of encoders, beside a network.
local function refuse_encoder_fields(where, data)
    local present = { fusion = data.fusion, layer_decay = data.layer_decay ~= 1, dropout = data.dropout ~= 0,
                      drop_path = data.drop_path ~= 0 }
    for _, field in ipairs { "fusion", "layer_decay", "dropout", "drop_path" } do
        if present[field] then
            check.fail(where, field, nil, format("field '%s' is for encoders; leave it out beside 'network'", field))
        end
    end
end

function rules.train(where, data)
    if data.encoders and data.network then
        check.fail(where, "network", nil, "field 'network' stands in place of 'encoders'; wanted one of the two")
    elseif not data.encoders and not data.network then
        check.fail(where, nil, nil, "field 'encoders' is missing; wanted terrane.encoder {...}, or a field 'network'")
    end
    if data.network then
        refuse_encoder_fields(where, data)
    end
    data.encoders = data.encoders or {}
    data.fusion = data.fusion or default_of "concat"
    data.head = data.head or default_of "linear"
    data.optimizer = data.optimizer or default_of "adamw"
    data.schedule = data.schedule or default_of "cosine"
    for _, field in ipairs { "start", "last" } do
        local rate = data.schedule[field]
        if rate and rate > data.optimizer.rate then
            check.fail(data.schedule, field, nil,
                       format("field '%s' is %.14g, above the optimiser's rate, %.14g", field, rate,
                              data.optimizer.rate))
        end
    end
    if data.schedule.warmup_epochs >= data.epochs then
        check.fail(data.schedule, "warmup_epochs", nil,
                   format("field 'warmup_epochs' is %.14g; wanted less than the %d epochs of training",
                          data.schedule.warmup_epochs, data.epochs))
    end
    complete_encoders(data)
end

-- ---- networks ----

local max_nodes = 1024
local operators = host.operators() -- name, least and most values, as the runtime has them

local function argument_of(where, key, value)
    local kind = type(value)
    if type(key) ~= "string" or kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
        check.fail(where, nil, nil, format("argument %s is %s; wanted name = text, number, true or false",
                                           check.show(key), check.show(value)))
    end
    if kind == "boolean" then
        value = value and 1 or 0
    end
    return { key = key, number = kind ~= "string" and value + 0.0 or nil, text = kind == "string" and value or nil }
end

-- The arguments of one call: values come first, alone or inside the table; what has a name is an argument.
local function read_call(where, ...)
    local values, named = {}, {}
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        if type(value) == "table" and not check.data(value) and i == select("#", ...) then
            named = value
        else
            if value == nil then
                check.fail(where, nil, nil, format("value %d is nil; wanted a value of this network", i))
            end
            values[#values + 1] = value
        end
    end
    for i = 1, #named do
        values[#values + 1] = named[i]
    end
    return values, named
end

local function value_of(where, graph, i, value)
    local data = check.data(value)
    if not data or data.kind ~= "value" then
        local hint = value == graph.builder and "; write g." .. where.constructor .. ", with a dot" or ""
        check.fail(where, nil, nil, format("value %d is %s; wanted a value of this network%s", i, check.show(value),
                                           hint))
    elseif data.graph ~= graph then
        check.fail(where, nil, nil, format("value %d is of another network", i))
    end
    return data.index
end

local function named_of(where, graph, named, positional)
    local args, name = {}, nil
    for key, value in next, named do
        local counted = math.type(key) == "integer" and key >= 1 and key <= positional
        if key == "name" then
            name = type(value) == "string" and value or nil
            if not name or graph.names[name] then
                check.fail(where, nil, nil, format("the name %s %s", check.show(value), name and "stands twice"
                                                   or "is no text"))
            end
        elseif not counted then
            args[#args + 1] = argument_of(where, key, value)
        end
        if #args > 16 then
            check.fail(where, nil, nil, "more than 16 arguments")
        end
    end
    table.sort(args, function(a, b) return a.key < b.key end)
    return args, name
end

local function add_node(graph, op, line, ...)
    local where = { line = line, constructor = op.name }
    local values, named = read_call(where, ...)
    local inputs = {}
    if graph.finished then
        check.fail(where, nil, nil, "the network is finished; call operators inside its function")
    end
    for i, value in ipairs(values) do
        inputs[i] = value_of(where, graph, i, value)
    end
    local args, name = named_of(where, graph, named, #named)
    local mistake = host.check_node(op.name, #inputs, args, name)
    if mistake then
        check.fail(where, nil, nil, mistake)
    end
    if #graph.nodes == max_nodes then
        check.fail(where, nil, nil, format("more than %d operators in a network", max_nodes))
    end
    graph.nodes[#graph.nodes + 1] = { op = op.name, name = name, line = line, inputs = inputs, args = args }
    if name then
        graph.names[name] = true
    end
    return #graph.nodes
end

local function value_handle(graph, index)
    return check.handle { kind = "value", constructor = "graph", what = "a value of terrane.graph", graph = graph,
                          index = index }
end

local function builder_of(graph)
    local functions, op_names = {}, {}
    for i, op in ipairs(operators) do
        op_names[i] = op.name
        functions[op.name] = host.constructor(function(line, _, ...)
            return value_handle(graph, add_node(graph, op, line, ...))
        end)
    end
    local builder = setmetatable({}, {
        __metatable = false,
        __name = "terrane.graph",
        __index = function(_, key)
            local found = functions[key]
            if not found then
                error(format("recipe:%d: graph: there is no operator %s%s (operators: %s)", host.line(),
                             check.show(key), check.did_you_mean(tostring(key), op_names),
                             table.concat(op_names, ", ")), 0)
            end
            return found
        end,
        __newindex = function()
            error(format("recipe:%d: graph: its operators cannot be changed", host.line()), 0)
        end,
    })
    check.register(builder, { kind = "builder", constructor = "graph", what = "the operators of terrane.graph" })
    return builder
end

-- Values count from 0: the input, then the results of operators.
local function build_graph(line, count, build)
    local where = { line = line, constructor = "graph" }
    if count ~= 1 or type(build) ~= "function" then
        check.fail(where, nil, nil, format("got %s; wanted terrane.graph(function(g, x) ... return y end)",
                                           count == 1 and check.show(build) or count .. " values"))
    end
    local graph = { nodes = {}, names = {} }
    graph.builder = builder_of(graph)
    local results = table.pack(build(graph.builder, value_handle(graph, 0)))
    local data = results.n == 1 and check.data(results[1])
    if not data or data.graph ~= graph then
        check.fail(where, nil, nil, format("the function returns %s; wanted one value of the network",
                                           results.n == 1 and check.show(results[1]) or results.n .. " values"))
    end
    graph.finished = true
    return check.handle { kind = "graph", constructor = "graph", line = line, nodes = graph.nodes, output = data.index }
end

-- ---- constructors ----

local terrane = { graph = host.constructor(build_graph) }

local function construct(name)
    local constructor = by_name[name]
    return function(line, count, value)
        local where = { line = line, constructor = name }
        local data = check.fields(where, constructor, argument(where, constructor, count, value))
        data.kind, data.constructor, data.line = constructor.kind, name, line
        if rules[name] then
            rules[name](where, data)
        end
        return check.handle(data)
    end
end

for _, constructor in ipairs(schema) do
    if constructor.fields then
        terrane[constructor.name] = host.constructor(construct(constructor.name))
    end
end

-- ---- parameters ----

local declared -- list of { name, value, default, help }, in the order of the recipe

local function value_type(value)
    return math.type(value) or type(value)
end

local function limits_text(param)
    return check.want { type = param.values and "choice" or param.type, what = "text", min = param.min, max = param.max,
                        values = param.values }
end

local function allowed(param, value)
    if param.values then
        for _, text in ipairs(param.values) do
            if text[1] == value then
                return true
            end
        end
        return false
    end
    return not math.type(value)
        or value == value and (not param.min or value >= param.min) and (not param.max or value <= param.max)
end

local readers = {
    string = function(text) return text end,
    integer = host.parse_integer,
    float = host.parse_number,
    boolean = function(text)
        if text == "true" or text == "false" then
            return text == "true"
        end
    end,
}

local type_names = { string = "string", integer = "integer", float = "number", boolean = "boolean" }

local function read_param(where, key, source)
    local record = by_name.params
    if type(source) ~= "table" or check.data(source) then
        source = { default = source }
    end
    local inner = { line = where.line, constructor = "params", field = key, label = "params: " .. key }
    local fields = check.fields(inner, { fields = record.each }, source)
    local kind = value_type(fields.default)
    if kind == "integer" and math.type(source.default) == "float" then
        kind, fields.default = "float", source.default
    end
    local param = { name = key, kind = kind, type = type_names[kind], help = fields.help or "",
                    default = fields.default, min = fields.min, max = fields.max }
    local function fail(message)
        check.fail(inner, key, nil, message)
    end
    if (param.min or param.max) and kind ~= "integer" and kind ~= "float" then
        fail("fields 'min' and 'max' are for numbers")
    end
    if fields.values and kind ~= "string" then
        fail("field 'values' is for texts")
    end
    if fields.values then
        param.values = {}
        for i, text in ipairs(fields.values) do
            param.values[i] = { text }
        end
    end
    if not allowed(param, param.default) then
        fail(format("field 'default' is %s; wanted %s", check.show(param.default), limits_text(param)))
    end
    return param
end

local function override(param, text)
    param.value = param.default
    if text == nil then
        return
    end
    local value = readers[param.kind](text)
    if value == nil or not allowed(param, value) then
        error(format("--set %s=%s: wanted %s", param.name, text, limits_text(param)), 0)
    end
    param.value = value
end

local function names_of(list)
    local names = {}
    for i, param in ipairs(list) do
        names[i] = param.name
    end
    return names
end

local function check_sets(list)
    local names = names_of(list)
    for key in next, host.sets do
        local known = false
        for _, name in ipairs(names) do
            known = known or name == key
        end
        if not known then
            local known_names = #names > 0 and " (parameters: " .. table.concat(names, ", ") .. ")"
                or " (it has none)"
            error(format("--set %s: the recipe has no parameter %s%s%s", key, check.show(key),
                         check.did_you_mean(key, names), known_names), 0)
        end
    end
end

local function check_param_name(where, key)
    if type(key) ~= "string" or #key > 64 or not key:find("^[%a_][%w_]*$") then
        check.fail(where, nil, nil, format("%s is not a name for a parameter; wanted key = value", check.show(key)))
    end
end

local function declare(line, count, value)
    local where = { line = line, constructor = "params" }
    if declared then
        check.fail(where, nil, nil, "called a second time; declare all parameters in one table")
    end
    local list = {}
    for key, source in next, argument(where, by_name.params, count, value) do
        check_param_name(where, key)
        list[#list + 1] = read_param(where, key, source)
        if #list > 64 then
            check.fail(where, nil, nil, "more than 64 parameters")
        end
    end
    for _, param in ipairs(list) do
        param.line = host.locate(line, "params", param.name)
    end
    table.sort(list, function(a, b)
        if a.line ~= b.line then
            return a.line < b.line
        end
        return a.name < b.name
    end)
    check_sets(list)
    declared = list
    local values = {}
    for _, param in ipairs(list) do
        override(param, host.sets[param.name])
        values[param.name] = param.value
    end
    return values
end

local function params_handle(line, count, value)
    local values = declare(line, count, value)
    local handle = setmetatable({}, {
        __metatable = false,
        __name = "terrane.params",
        __index = function(_, key)
            if values[key] == nil then
                local names = names_of(declared)
                error(format("recipe:%d: params: no parameter %s is declared%s (parameters: %s)", host.line(),
                             check.show(key), check.did_you_mean(key, names), table.concat(names, ", ")), 0)
            end
            return values[key]
        end,
        __newindex = function(_, key)
            error(format("recipe:%d: params: %s cannot be set here; use --set %s=VALUE", host.line(), check.show(key),
                         tostring(key)), 0)
        end,
    })
    check.register(handle, { kind = "params", constructor = "params" })
    return handle
end
terrane.params = host.constructor(params_handle)

-- ---- the module as recipes see it, and the end ----

local names = {}
for name in next, terrane do
    names[#names + 1] = name
end
table.sort(names)

local module = setmetatable({}, {
    __metatable = false,
    __name = "terrane",
    __index = function(_, key)
        local found = terrane[key]
        if not found then
            error(format("recipe:%d: terrane.%s does not exist%s (terrane has: %s)", host.line(), tostring(key),
                         check.did_you_mean(tostring(key), names), table.concat(names, ", ")), 0)
        end
        return found
    end,
    __newindex = function()
        error(format("recipe:%d: the module terrane cannot be changed", host.line()), 0)
    end,
})

local jobs = { embed = true, reconstruct = true, probing = true, training = true }

-- What the recipe returned -> checked data of the job, parameters.
local function finish(count, value)
    check_sets(declared or {})
    local data = count == 1 and check.data(value)
    if not data or not jobs[data.kind] then
        local got = count == 0 and "nothing" or count > 1 and count .. " values" or check.show(value)
        error(format("recipe:0: the recipe returns %s; end it with: return terrane.embed { ... }, "
                         .. "terrane.reconstruct, terrane.probe or terrane.train", got), 0)
    end
    for _, param in ipairs(declared or {}) do
        param.value_text = host.number_text(param.value)
        param.default_text = host.number_text(param.default)
    end
    return data, declared or {}
end

return { module = module, finish = finish }

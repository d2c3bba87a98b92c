-- luacheck: what stands in which Lua file.
std = "lua54"
max_line_length = 120
cache = false

-- Terrane's own modules get these two from lua/recipe.c.
files["lua/terrane"] = { read_globals = { "host", "import" } }

-- Stubs declare functions with arguments that nothing uses.
files["lua/meta"] = { unused_args = false }

-- Recipes see the allow-list of lua/sandbox.c and nothing else.
stds.recipe = {
    read_globals = {
        "assert", "error", "ipairs", "next", "pairs", "print", "require", "select", "tonumber", "tostring", "type",
        string = { fields = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep",
                              "reverse", "sub", "upper" } },
        table = { fields = { "concat", "insert", "pack", "remove", "sort", "unpack" } },
        math = { fields = { "abs", "ceil", "cos", "exp", "floor", "fmod", "huge", "log", "max", "maxinteger", "min",
                            "mininteger", "pi", "sin", "sqrt", "tan", "tointeger", "type", "ult" } },
        utf8 = { fields = { "char", "codepoint", "codes", "len", "offset" } },
    },
}
files["recipes"] = { std = "recipe" }

"""Names of the optimizers that a trial may have: timm's, written down as asking it costs torch."""

OPTIMIZERS = (
    *("adabelief", "adadelta", "adafactor", "adafactorbv", "adafactorbvc", "adagrad"),
    *("adam", "adamax", "adamc", "adamp", "adamuon", "adamw", "adan", "adanw", "adopt"),
    *("adoptc", "adoptw", "cadafactor", "cadafactorbv", "cadafactorbvc", "cadamc"),
    *("cadamp", "cadamw", "cadan", "cadanw", "cadopt", "cadoptc", "cadoptw", "clamb"),
    *("clambw", "claprop", "clion", "clionc", "cmars", "cnadamc", "cnadamw", "crmsproptf"),
    *("csgdc", "csgdp", "csgdw", "lamb", "lambc", "lambcd", "lambcw", "lambw", "laprop"),
    *("lapropc", "larc", "lars", "lion", "lionc", "madgrad", "madgradw", "mars"),
    *("momentum", "muon", "nadam", "nadamc", "nadamuon", "nadamw", "nesterov", "nesterovw"),
    *("nlarc", "nlars", "nmuon", "novograd", "novogradc", "novogradw", "radabelief"),
    *("radam", "radamw", "rmsprop", "rmsproptf", "rmsproptfc", "rmsproptfw", "sgd", "sgdc"),
    *("sgdp", "sgdw"),
)
"""timm's names, without those that need another library (apex, bitsandbytes, opt_einsum) or second
derivatives, and without older versions of others."""

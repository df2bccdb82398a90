# What R and lme4 make of formulas: writes golden.json beside this file.
#   cd tests/unit/formula && LC_ALL=C.UTF-8 Rscript golden.R
# Made with R 4.2 and lme4 1.1-31; needs jsonlite.
suppressMessages({library(lme4); library(jsonlite)})

fixed <- c(
  "y ~ 1", "y ~ 0", "y ~ -1", "y ~ a", "~ a", "y ~ a + b", "y ~ b + a", "y ~ a * b", "y ~ a * b * c", "y ~ a:b", "y ~ b:a + a:b",
  "y ~ b:a + a + b", "y ~ a:b:c + c:b", "y ~ (a + b + c)^2", "y ~ (a + b)^3", "y ~ (a + b + c)^2 - a:b", "y ~ (a + b)**2", "y ~ a^2",
  "y ~ a/b", "y ~ a/b/c", "y ~ (a + b)/c", "y ~ a/(b + c)", "y ~ a/(b * c)", "y ~ a %in% b", "y ~ b %in% a", "y ~ a + b %in% a",
  "y ~ a %in% b %in% c", "y ~ (a + b) %in% c", "y ~ a %in% (b + c)", "y ~ (a * b) %in% c", "y ~ a:b %in% c", "y ~ (a + b):(c + d)",
  "y ~ a * b - a", "y ~ a + b + a:b - b", "y ~ a:b - b:a", "y ~ a + b - (a + b)", "y ~ a - a", "y ~ a - b", "y ~ -a", "y ~ -a + b",
  "y ~ +a", "y ~ 0 + a", "y ~ a - 1", "y ~ a + 1 - 1", "y ~ -1 + a + 1", "y ~ 0 + a + 1", "y ~ a - 0", "y ~ -1 - 1", "y ~ a - -1",
  "y ~ a + -1", "y ~ (a - 1)", "y ~ (a - 1) * b", "y ~ b * (a - 1)", "y ~ a * (b - 1)", "y ~ (0 + a)", "y ~ b + (0 + a)", "y ~ a:a",
  "y ~ a * a", "y ~ 1:a", "y ~ a:1", "y ~ a * 1", "y ~ a/1", "y ~ 1/a", "y ~ 1 * a", "y ~ -a * b", "y ~ 0 * a + b", "y ~ 0:a", "y ~ a * 0", "y ~ b:(a + 1)", "y ~ (a + 1):b",
  "y ~ (1 + a) * b", "y ~ a + (b + c) * d", "y ~ a * b + c * d", "y ~ c:d + a * b", "y ~ z:b + a:z", "y ~ a * b * c - a:b:c",
  "y ~ x:y", "y ~ y:x", "y ~ x + (x)", "y ~ (((a)))", "y ~ a + offset(w) + b", "y ~ a:offset(w)", "y ~ a * offset(w)", "y ~ offset(w)",
  "y ~ a + offset(w) - offset(w)", "y ~ offset(w) + a:b + b", "y ~ offset(log(w)) + offset(v)", "y ~ I(x^2) + x", "log(y) ~ x",
  "y ~ poly(x, 2, raw=TRUE)", "y ~ poly(x,degree=2) + poly(x, degree = 2)", "y ~ factor(a):b + b", "y ~ factor(a) * log(x + 1)",
  "y ~ a == b", "y ~ a > 1", "y ~ !a", "y ~ a & b", "y ~ x %% 2", "y ~ `my var` + b", "y ~ `my var`:b", "y ~ `a`", "`my y` ~ x",
  "y ~ x^2", "y ~ (a + b + c + d)^3 - c:d", "y ~ a/b - a", "y ~ (a/b)/c + d", "y ~ a * b %in% c", "y ~ (a + b + c)^2 * d",
  "y ~ a:b + c + d:e:f + b", "cbind(y, n - y) ~ x", "y ~ a:(b + c)^2", "y ~ (a * b)^2", "y ~ (a - b)^2", "y ~ a + (b - a)", "y ~ -(a - b) + b"
)
one_fixed <- function(s) {
  t <- terms(as.formula(s))
  v <- attr(t, "variables")[-1]
  list(formula = s, labels = I(as.character(attr(t, "term.labels"))), intercept = attr(t, "intercept") == 1,
       offsets = I(as.character(sapply(v[attr(t, "offset")], deparse))))
}

dots <- c("y ~ .", "y ~ . - a", "y ~ . * a", "y ~ .^2", "log(y) ~ .", "log(y) ~ . + log(b)", "cbind(y, a) ~ .", "y ~ .:a", "y ~ b + .",
  "y ~ (.)", "~ .", "y ~ a * . - b", "y ~ . + offset(b)", "y ~ poly(a, 2) + .", "y ~ 0 + .", "y ~ . - 1", "y ~ b:a + .", "y ~ a + . - b",
  "y ~ . - .", "y ~ ./a", "y ~ a %in% .")
one_dot <- function(s) {
  t <- terms(as.formula(s), data = data.frame(y = 1, a = 1, b = 1, c = 1))
  list(formula = s, labels = I(as.character(attr(t, "term.labels"))), intercept = attr(t, "intercept") == 1)
}

random <- c("y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ (0 + x | g)", "y ~ (-1 + x | g)", "y ~ (x - 1 | g)", "y ~ (x || g)",
  "y ~ (x + z || g)", "y ~ (f || g)", "y ~ (0 + f || g)", "y ~ (x * z || g)", "y ~ (x * f || g)", "y ~ (x:f || g)", "y ~ (1 | a/b)",
  "y ~ (x | a/b)", "y ~ (1 | a/b/c)", "y ~ (1 | a/b/c/f)", "y ~ (1 | a:b)", "y ~ (1 | b:a)", "y ~ (1 | a:b:c)", "y ~ (x || a/b)",
  "y ~ 0 + x + (1 | g)", "y ~ (1 | g)", "y ~ (1 | g) + (1 | a)", "y ~ ((1 | g))", "y ~ (1 | a/b:c)", "y ~ (x | g) + (1 | g)",
  "y ~ 1 + (1 | g) + 0", "y ~ (I(x^2) | g)", "y ~ (x + x | g)", "y ~ (1 + x + z || g)", "y ~ (1 - 1 + x || g)", "y ~ (x || g) + (z || g)",
  "y ~ (x || a:b)", "y ~ (0 + x || g)", "y ~ (0 + x + z || g)", "y ~ (-1 + x + z || g)", "y ~ (x + z - 1 || g)", "y ~ (z:x + x || g)",
  "y ~ +(1 | g)", "y ~ . + (1 | g)", "y ~ (1 | g) + .", "y ~ z + (x | g) + .", "y ~ (1 | a/b) + (1 | c)", "y ~ (f * h || g)",
  "y ~ (poly(x, 2) || g)", "y ~ (y | g)", "y ~ (a:b || g)", "y ~ ((x || g))", "y ~ (-1 + f || g)", "y ~ (1 + 1 | g)", "y ~ (x * z | g)",
  "y ~ (x^2 | g)", "y ~ ((x + z)^2 | g)", "y ~ (x + z + f)^2 + (1 | g)", "y ~ z + (1 | g) + x", "y ~ z:x + (1 | g) + x",
  "y ~ (z:x + x | g)", "y ~ (x | g) + 1", "y ~ 0 + (x | g)", "y ~ (x | g) + 0 + z", "y ~ (1 | g) + offset(w)", "y ~ x * f + (f | a/b) + (x || g)")
n <- 60
set.seed(1)
d <- data.frame(y = rnorm(n), x = rnorm(n), z = rnorm(n), f = factor(rep(c("p", "q", "r"), 20)), h = factor(rep(c("u", "v"), 30)),
  a = factor(rep(1:3, each = 20)), b = factor(rep(1:5, 12)), c = factor(rep(1:4, 15)), g = factor(rep(1:10, 6)), w = rnorm(n))
quiet <- lmerControl(check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore", check.nlev.gtr.1 = "ignore",
  check.rankX = "silent.drop.cols", check.nobs.vs.rankZ = "ignore")
one_random <- function(s) {
  f <- as.formula(s)
  bars <- lapply(findbars(f), function(bar) {
    t <- terms(eval(substitute(~ L, list(L = bar[[2]]))))
    list(group = deparse(bar[[3]]), labels = I(as.character(attr(t, "term.labels"))), intercept = attr(t, "intercept") == 1)
  })
  lf <- lFormula(f, d, control = quiet)
  t <- terms(nobars(f), data = lf$fr)
  list(formula = s, bars = bars, columns = I(names(d)), labels = I(as.character(attr(t, "term.labels"))),
       intercept = attr(t, "intercept") == 1, groups = I(sort(unique(names(lf$reTrms$cnms)))))
}

printed <- c("poly(Days,2,raw=TRUE)", "log(x+1)", "I(x^2+-1)", "I(-x)", "I(-x^2)", "I((-x)^2)", "I(a*b/c)", "I(a%%b)", "I(a%in%b)", "I(!a)",
  "I(a&b)", "I(a==b)", "I(x+1e5)", "I(x+123456)", "I(x+0.1)", "I(x+1e-5)", "I(x+0.0001)", "I(x+1L)", "I(x+1e15)", "I(x+1e300)", "I(x+.5)",
  "I(x+1/3)", "I(x+0.1234567890123456789)", "I(x+2.50)", "log(`my var`)", "`if`", "`_x`", "`.2a`", "`..1`", "`TRUE`", "`a.b`",
  "factor(x,levels=c(\"a\",'b\"c'))", "factor(x,'a\\nb')", "factor(x,'\\\\')", "factor(x,'\u00e9')", "I(a^b^c)", "I((a^b)^c)",
  "I(a-(b-c))", "factor(x,labels=NULL)", "I(+x)", "I(--x)", "I(x<=1)", "I(!(a))", "log((x))", "bs(x,knots=c(1,2))", "I(x^-1)",
  "I(x+12345678)", "I(x+1234567890)", "I(x+100)", "I(x+1000)", "I(x+0.001)", "I(x+1e22)", "I(x+123456.7)", "I(x-1e-15)",
  "I(x+3.14159265358979)", "I(x+0.30000000000000004)", "I(x+150000)", "I(x+1200000)", "I(x-1)", "I(2^-x)", "I(-a*b)", "I(a*-b)",
  "factor(x,'tab\\t')", "I(x+99999)", "I(x+10000000)", "I(x%in%c(1,2))", "I(a!=b)", "I(!a==b)", "I(a**2)", "`a b`", "`a\\\\b`",
  "na\u00efve", "x1.y_2", "factor(x,levels=1:3)", "I(a&&b)", "I(a>=b)", "ifelse(a>1,b,c)", 
  "I(x+123456789012345)", "I(x+1234567890123456)", "I(x+0.000123)", "I(x+9.999999999999999e22)", "C(f,contr.sum)", "I(a-b-c)", "I(a/b/c)")
one_printed <- function(s) list(text = s, label = attr(terms(as.formula(paste("~", s))), "term.labels"))

# Precedence: the operator at the top of the tree and its operands.
trees <- c("-a^2", "a %in% b:c", "a:b %in% c", "!a & b", "-a:b", "y ~ a | b + c", "a * !b + c", "a^-b^c", "a^b:c", "x %% 2 * 3", "-a %% b",
  "a == b & c", "~ -a %in% b", "a + b - c", "a / b * c", "a - b * c^d", "a | b & c", "a || b | c", "!a == b", "-a + b", "a * -b / c",
  "a < b + 1", "(a + b) * c", "- -a^2", "!!a", "a & b | c & d")
one_tree <- function(s) list(text = s, parts = sapply(as.list(parse(text = s)[[1]]), function(p) paste(deparse(p), collapse = "")))

write(toJSON(list(fixed = lapply(fixed, one_fixed), dots = lapply(dots, one_dot), random = lapply(random, one_random),
  printed = lapply(printed, one_printed), trees = lapply(trees, one_tree)), auto_unbox = TRUE, pretty = TRUE), "golden.json")

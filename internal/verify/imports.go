package verify

import (
	"strings"
	"sync"
)

// These lists judge what a pickle imports. Lists of dangers are incomplete by nature, so the list
// of harmless names decides: what is on neither is Suspicious, never OK.

// judgeImport says what importing name from module means: Dangerous, OK, or Suspicious when it is on
// no list.
func judgeImport(module, name string) Verdict {
	lists := importLists()
	outer, _, _ := strings.Cut(name, ".")
	_, named := lists.dangerous[[2]string{module, outer}]
	switch {
	case named, lists.inDangerousModule(module), lists.reachesDanger(name):
		return Dangerous
	case lists.isHarmless(module, name):
		return OK
	}
	return Suspicious
}

// dangerousModules are those of which nothing may be imported, nor of their submodules. Former
// names (Python 2) are mapped to present ones by unpicklers, so both are here.
const dangerousModules = `
	_aix_support _osx_support _pickle _posixsubprocess _winapi aiohttp asyncio bdb
	cloudpickle commands ctypes dill distutils dl fileinput ftplib http
	httplib httpx imp importlib linecache marshal msvcrt multiprocessing nt ntpath
	numpy.distutils numpy.f2py numpy.testing os pdb pickle pip pkgutil popen2 posix
	posixpath pty pydoc requests runpy setuptools shelve shutil smtplib socket
	socketserver ssl subprocess sys tempfile test.support timeit torch.hub torch.package
	torch.utils.cpp_extension urllib urllib2 urllib3 venv webbrowser winreg xmlrpc zipimport`

// dangerousNames are "module name name …", one module a line, where the rest of a module is not as
// bad. A name stands for what is below it too.
const dangerousNames = `
	builtins        __import__ apply breakpoint compile delattr eval exec execfile file getattr globals input locals memoryview open raw_input reload setattr vars
	__builtin__     __import__ apply breakpoint compile delattr eval exec execfile file getattr globals input locals memoryview open raw_input reload setattr vars
	cProfile        run runctx Profile
	code            InteractiveConsole InteractiveInterpreter interact
	codecs          open
	doctest         debug debug_script debug_src run_docstring_examples testfile
	ensurepip       _run_pip bootstrap
	functools       partial partialmethod
	io              FileIO open open_code
	_io             FileIO open open_code
	_pyio           FileIO open open_code
	idlelib.autocomplete AutoComplete
	idlelib.calltip Calltip get_entity
	idlelib.debugobj ObjectTreeItem
	idlelib.pyshell ModifiedInterpreter
	idlelib.run     Executive
	joblib          load
	joblib.numpy_pickle load _unpickle
	lib2to3.pgen2.grammar Grammar
	lib2to3.pgen2.pgen ParserGenerator
	logging.config  dictConfig fileConfig listen
	numpy           fromfile genfromtxt load loadtxt memmap save savetxt
	numpy.ctypeslib load_library
	numpy.lib.npyio load loadtxt save savetxt
	operator        attrgetter itemgetter methodcaller
	_operator       attrgetter itemgetter methodcaller
	pandas          eval read_pickle
	pandas.io.pickle read_pickle
	profile         run runctx Profile
	torch           compile load save
	torch._dynamo.guards GuardBuilder
	torch._inductor.codecache compile_file
	torch.fx.experimental.symbolic_shapes ShapeEnv
	torch.jit       load
	torch.jit.unsupported_tensor_ops execWrapper
	torch.ops       load_library
	torch.serialization load save
	torch.storage   _load_from_bytes
	torch.utils._config_module ConfigModule
	torch.utils.bottleneck.__main__ run_autograd_prof run_cprofile
	torch.utils.collect_env run
	torch.utils.data.datapipes.utils.decoder basichandlers
	trace           Trace
	types           CodeType FunctionType LambdaType MethodType
	yaml            load unsafe_load full_load`

// harmlessNames are "module name name …": classes and functions that torch, numpy and plain data
// need, and that do nothing but hold or rebuild data.
const harmlessNames = `
	collections     OrderedDict Counter defaultdict deque
	builtins        bool bytearray bytes complex dict float frozenset int list object range set slice str tuple
	__builtin__     bool bytearray complex dict float frozenset int list long object set slice str tuple unicode xrange
	_codecs         encode
	argparse        Namespace
	datetime        date datetime time timedelta timezone
	decimal         Decimal
	fractions       Fraction
	numpy           dtype ndarray
	numpy.core.multiarray  _reconstruct scalar
	numpy._core.multiarray _reconstruct scalar
	numpy.core.numeric     _frombuffer
	numpy._core.numeric    _frombuffer
	torch           Size Tensor device dtype layout qscheme per_tensor_affine per_channel_affine
	torch           bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 short int long half float double
	torch           float16 float32 float64 bfloat16 complex32 complex64 complex128 cfloat cdouble chalf
	torch           float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2
	torch           quint8 qint8 qint32 quint4x2 quint2x4
	torch           FloatTensor DoubleTensor HalfTensor BFloat16Tensor ByteTensor CharTensor ShortTensor IntTensor LongTensor BoolTensor
	torch.storage   TypedStorage UntypedStorage _TypedStorage _UntypedStorage
	torch.serialization _get_layout
	torch.nn.parameter  Parameter Buffer UninitializedParameter
	torch._utils    _rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state
	torch._utils    _rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_meta_tensor_no_storage
	torch._utils    _rebuild_nested_tensor _rebuild_device_tensor_from_numpy
	torch._tensor   _rebuild_from_type_v2`

// A lookup holds the lists in the form that answers at once: a hostile pickle may import millions of
// names.
type lookup struct {
	modules             map[string]struct{}
	dangerous, harmless map[[2]string]struct{} // by module and name
}

// importLists makes the lookup when it is first needed.
var importLists = sync.OnceValue(func() *lookup {
	l := &lookup{modules: map[string]struct{}{}, dangerous: byName(dangerousNames), harmless: byName(harmlessNames)}
	for m := range strings.FieldsSeq(dangerousModules) {
		l.modules[m] = struct{}{}
	}
	return l
})

// byName reads a list of "module name name …" lines.
func byName(list string) map[[2]string]struct{} {
	set := map[[2]string]struct{}{}
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		for i := 1; i < len(words); i++ {
			set[[2]string{words[0], words[i]}] = struct{}{}
		}
	}
	return set
}

// inDangerousModule reports whether module is one of dangerousModules or below one.
func (l *lookup) inDangerousModule(module string) bool {
	for i := range len(module) {
		if module[i] != '.' {
			continue
		}
		if _, ok := l.modules[module[:i]]; ok {
			return true
		}
	}
	_, ok := l.modules[module]
	return ok
}

// reachesDanger reports whether a dotted name walks through something that must not be reached:
// since protocol 4, "torch" and "serialization.os.system" import os.system.
func (l *lookup) reachesDanger(name string) bool {
	if !strings.Contains(name, ".") {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if _, ok := l.modules[part]; ok || strings.HasPrefix(part, "__") {
			return true
		}
	}
	return false
}

func (l *lookup) isHarmless(module, name string) bool {
	if module == "torch" && strings.HasSuffix(name, "Storage") && !strings.Contains(name, ".") {
		return true // FloatStorage and its many siblings
	}
	_, ok := l.harmless[[2]string{module, name}]
	return ok
}

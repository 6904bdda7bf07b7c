"""What the compilers of GPUs make of the engine's kernels: a table, held against limits.

sweep.py --compilers FOLDER --out FOLDER [--chips LIST] [--limits FILE] [--save] [--guide FILE] PROGRAM

PROGRAM is examples/gpu_code.rs: without arguments it lists its cases, with a case it compiles its kernels for the adapter, with a case and a
folder it writes their texts there, as WGSL and HLSL. --save writes today's numbers as limits; --guide puts the table into a page.
"""
import argparse, collections, fnmatch, glob, json, os, re, subprocess, sys

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
from analyze import analyze, share

CHIPS = {
    'amd:navi31': 'AMD RDNA 3', 'amd:gfx1201': 'AMD RDNA 4', 'amd:navi21': 'AMD RDNA 2', 'nvidia:172': 'NVIDIA Ampere, NVK', 'sm_75': 'NVIDIA Turing, ptxas',
    'sm_86': 'NVIDIA Ampere, ptxas', 'sm_90': 'NVIDIA Hopper, ptxas', 'apple:m1': 'Apple M1', 'intel:dg2': 'Intel Xe-HPG', 'intel:bmg': 'Intel Xe2',
    'adreno:740': 'Adreno 740',
}
# What each driver calls it. spills: registers; local: bytes of memory that stands in for registers, spilled or indexed.
NAMES = {
    'registers': ['VGPRs', 'Number of GPRs', 'GPRs', 'Registers used', 'Max live registers'],
    'spills': ['Spilled VGPRs', 'Spills to memory', 'Spills', 'STP Count'],
    'local': ['Scratch size', 'SLM size', 'Scratch', 'Scratch Memory Size'],
    'shared': ['LDS size', 'Workgroup Memory Size'],
    'waves': ['Subgroups per SIMD', 'Max warps/SM', 'Max Waves Per Core', 'Threads'],
    'instructions': ['Instructions', 'Instruction count', 'Instruction Count'],
    'subgroup': ['subgroup'],
}
COLUMNS = ['subgroup', 'registers', 'spills', 'local', 'shared', 'waves', 'instructions', 'fma']
# The exit code of a case that a chip has not what it needs for.
ABSENT = 3
LIMITS = ['kernel', 'chip', 'max_registers', 'max_spills', 'max_local', 'min_fma']


def loop_share(paths):
    """The share of multiply-adds in the loop that has most of them, in percent; None with matrix units, which have no such share."""
    for path in paths:
        loops, total = analyze(path)
        hot = [counts for _, _, _, counts in loops if counts['fma'] or counts['matrix']]
        best = max(hot, key=lambda counts: counts['fma'] + counts['matrix']) if hot else total
        return None if best['matrix'] else round(share(best))
    return None


def vulkan_rows(out):
    if not os.path.exists(f'{out}/stats.tsv'):
        return []
    stats, entries = collections.OrderedDict(), {}
    with open(f'{out}/stats.tsv') as file:
        for line in file:
            number, entry, name, value = line.rstrip('\n').split('\t')
            entries[number] = entry
            # Of several executables of one pipeline (Intel: one for each SIMD width) the last counts.
            stats.setdefault(number, {})[name] = value
    rows = []
    for number, values in stats.items():
        row = {'entry': entries[number]}
        for column, names in NAMES.items():
            found = [float(values[name]) for name in names if name in values]
            row[column] = int(found[0]) if found else None
        texts = glob.glob(f'{out}/{number}-*')
        row['fma'] = loop_share([text for text in texts if re.search(r'(NAK_|IR3_|GEN_|AGX_|\.)[Aa]ssembly\.txt$', text)])
        if row['shared'] is None:
            row['shared'] = shared_in(texts)
        rows.append(row)
    return rows


def shared_in(texts):
    """Bytes of workgroup memory, which NVK, Turnip and Honeykrisp say in their texts only."""
    for text in texts:
        if not text.endswith('.spv') and (found := re.search(r'^(?:shared_size|shared): (\d+)', open(text, errors='replace').read(), re.M)):
            return int(found[1])
    return 0


def ptxas_rows(compilers, texts, out, sm):
    rows, known = [], set()
    for text in sorted(glob.glob(f'{texts}/*.hlsl'), key=lambda text: int(re.search(r'-(\d+)-[^-]*$', text)[1])):
        name = os.path.basename(text)[:-5]
        source = open(text).read()
        if source in known:
            continue
        known.add(source)
        row = dict.fromkeys(COLUMNS) | {'entry': name.split('-')[-1], 'subgroup': 32}
        done = subprocess.run([f'{here}/ptxas.sh', compilers, text, row['entry'], out, sm], capture_output=True, text=True)
        if done.returncode:
            print(f'   sm_{sm}: {name}: {done.stderr.strip()[:300]}', file=sys.stderr)
        else:
            number = lambda pattern: sum(map(int, re.findall(pattern, done.stdout)))
            code = open(f'{out}/{name}.sass').read()
            row |= {
                'registers': number(r'Used (\d+) registers'), 'spills': number(r'(\d+) bytes spill stores') // 4,
                'local': number(r'(\d+) bytes stack frame'), 'shared': number(r'(\d+) bytes smem'), 'fma': loop_share([f'{out}/{name}.sass']),
                'instructions': len(re.findall(r'^\s*/\*[0-9a-f]{4,5}\*/ +(?!NOP)', code, re.M)),
            }
        rows.append(row)
    return rows


def progress(text, line):
    """A line on a terminal that is written over; without one, only what begins a chip."""
    if sys.stderr.isatty():
        print(f'\r{text}\033[K', end='', file=sys.stderr, flush=True)
    elif line:
        print(text, file=sys.stderr, flush=True)


def sweep(options, chips, cases):
    table, missing = [], []
    for done_chips, chip in enumerate(chips):
        for done_cases, case in enumerate(cases):
            progress(f'{chip}, {case}: {done_chips * len(cases) + done_cases} of {len(chips) * len(cases)}', done_cases == 0)
            out = os.path.join(options.out, chip.replace(':', '-'), case)
            os.makedirs(out, exist_ok=True)
            if chip.startswith('sm_'):
                for old in glob.glob(f'{out}/*'):
                    os.remove(old)
                done = subprocess.run([options.program, case, out], capture_output=True, text=True)
                rows = ptxas_rows(options.compilers, out, out, chip[3:])
            else:
                done = subprocess.run([f'{here}/run.sh', options.compilers, chip, out, options.program, case], capture_output=True, text=True)
                rows = vulkan_rows(out)
            if done.returncode == ABSENT:
                continue
            if done.returncode or not rows:
                missing.append(f'{case} on {chip}: exit code {done.returncode}, {len(rows)} kernels: {(done.stderr or done.stdout).strip()[-300:]}')
            seen = collections.Counter()
            for row in rows:
                name = row.pop('entry')
                # What is compiled when a device is opened.
                if name.startswith('probe_'):
                    continue
                seen[name] += 1
                nth = f'#{seen[name]}' if seen[name] > 1 else ''
                table.append({'kernel': f'{case}/{name}{nth}', 'chip': chip} | row)
    progress('', False)
    return table, missing


def show(table):
    columns = ('kernel', 'chip', *COLUMNS)
    cells = [list(columns)] + [['-' if row.get(c) is None else f'{row[c]} %' if c == 'fma' else str(row[c]) for c in columns] for row in table]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ('  '.join(x.ljust(w) if i < 2 else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths))).rstrip() for row in cells)
    return '\n'.join(lines) + '\n'


def page(table, chips):
    """The table of the guide: a row for a kernel, a column for a chip."""
    cells = collections.OrderedDict()
    for row in table:
        cell = '-'
        if row['registers'] is not None:
            cell = str(row['registers'])
            cell += f' **s{row["spills"]}**' if row['spills'] else ''
            cell += f' **m{row["local"]}**' if row['local'] else ''
            cell += '' if row['fma'] is None else f' {row["fma"]} %'
        cells.setdefault(row['kernel'], {})[row['chip']] = cell
    lines = ['| case / kernel | ' + ' | '.join(CHIPS.get(chip, chip) for chip in chips) + ' |', '|---' * (len(chips) + 1) + '|']
    lines += [f'| {kernel} | ' + ' | '.join(of.get(chip, '-') for chip in chips) + ' |' for kernel, of in cells.items()]
    return '\n'.join(lines)


def write_guide(path, table, chips):
    text = open(path).read()
    begin, end = '<!-- table: made by make gpu-code -->\n', '<!-- end of the table -->'
    if begin not in text or end not in text:
        sys.exit(f'{path}: the marks of the table are missing: {begin.strip()} and {end}')
    with open(path, 'w') as file:
        file.write(text[:text.index(begin)] + begin + page(table, chips) + '\n' + text[text.index(end):])


def save(path, table):
    with open(path, 'w') as file:
        print('# kernel and chip may hold * and ?; - is no limit. Written by scripts/gpu-code.sh --save.', file=file)
        print(*LIMITS, sep='\t', file=file)
        for row in table:
            if row['registers'] is not None:
                limits = [row['registers'], row['spills'] or 0, row['local'] or 0, '-' if row['fma'] is None else row['fma']]
                print(row['kernel'], row['chip'], *limits, sep='\t', file=file)


def exceeded(path, table, chips):
    """What breaks a limit, how many limits were checked, and which kernels have none."""
    broken, checks, limited = [], 0, set()
    for number, line in enumerate(open(path), 1):
        if not line.strip() or line.startswith(('#', 'kernel\t')):
            continue
        fields = line.rstrip('\n').split('\t')
        if len(fields) != len(LIMITS):
            sys.exit(f'{path}:{number}: {len(LIMITS)} fields are wanted: {line!r}')
        kernel, chip, *limits = fields
        if not any(fnmatch.fnmatchcase(one, chip) for one in chips):
            continue
        rows = [row for row in table if fnmatch.fnmatchcase(row['kernel'], kernel) and fnmatch.fnmatchcase(row['chip'], chip)]
        if not rows:
            broken.append(f'{kernel} on {chip}: no such kernel was seen')
        for row in rows:
            limited.add((row['kernel'], row['chip']))
            for name, limit in zip(LIMITS[2:], limits):
                if limit == '-':
                    continue
                checks += 1
                side, column = name.split('_')
                value = row[column]
                if value is None and column in ('spills', 'local') and row['registers'] is not None:
                    value = 0
                if value is None or (value > float(limit) if side == 'max' else value < float(limit)):
                    broken.append(f'{row["kernel"]} on {row["chip"]}: {column} {value}, {"at most" if side == "max" else "at least"} {limit}')
    free = [f'{row["kernel"]} on {row["chip"]}: it has no limits' for row in table if (row['kernel'], row['chip']) not in limited]
    return broken + free, checks


def main():
    arguments = argparse.ArgumentParser(prog='sweep.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('--compilers', required=True)
    arguments.add_argument('--out', required=True)
    arguments.add_argument('--chips', default=','.join(CHIPS))
    arguments.add_argument('--cases', help='only those cases, separated by commas')
    arguments.add_argument('--limits')
    arguments.add_argument('--save', action='store_true')
    arguments.add_argument('--guide')
    arguments.add_argument('program')
    options = arguments.parse_args()
    options.program = os.path.abspath(options.program)
    chips = options.chips.split(',')
    listed = subprocess.run([options.program], capture_output=True, text=True, check=True).stdout.split()
    cases = options.cases.split(',') if options.cases else listed
    table, missing = sweep(options, chips, cases)
    with open(f'{options.out}/table.txt', 'w') as file:
        file.write(show(table))
    with open(f'{options.out}/table.json', 'w') as file:
        json.dump(table, file, indent=1)
    print(show(table), end='')
    print(*missing, sep='\n', end='\n' if missing else '')
    if options.guide and not missing:
        write_guide(options.guide, table, chips)
    if options.save and not missing:
        save(options.limits, table)
    if options.limits:
        broken, checks = exceeded(options.limits, table, chips)
        print(*broken, sep='\n', end='\n' if broken else '')
        print(f'{checks} limits checked, {len(broken)} broken')
        sys.exit(1 if broken or missing or not checks else 0)
    sys.exit(1 if missing else 0)


main()
